/**
 * The append family on WebGPU: dispatches of shaders/append.wgsl or append_scaled.wgsl, mostly one.
 *
 * @module
 */

import type { AppendProblem } from "../append_problem.ts";
import type { AppendOperands } from "../backend.ts";
import { type AppendPlan, planAppend } from "./append_plan.ts";
import { endPosition, factorWords, paramWords, slotWords } from "./append_tables.ts";
import { type GpuStorage, scratchBuffer, smallBuffer } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";

/** Plans, compiles where needed, and submits an append. */
export async function runAppend(
  context: GpuContext,
  problem: AppendProblem,
  operands: AppendOperands,
): Promise<void> {
  const rounding = await context.rounding();
  const plan = planAppend(problem, context.capabilities, rounding);
  if (problem.numTokens === 0) return;
  const kernels = await Promise.all(plan.passes.map(({ kernel }) => context.kernels.get(kernel)));
  for (const { name } of kernels) context.noteChoice("append", name, rounding.reason);
  await submit(
    context,
    "append",
    (temporary) => appendDispatches(context, plan, kernels, problem, operands, temporary),
  );
}

/** A plan's dispatches, bound to operands; new buffers are entered in `temporary`. */
export function appendDispatches(
  { device, ropeTables }: Pick<GpuContext, "device" | "ropeTables">,
  plan: AppendPlan,
  kernels: readonly Kernel[],
  problem: AppendProblem,
  operands: AppendOperands,
  temporary: GPUBuffer[],
): Dispatch[] {
  const own = (buffer: GPUBuffer): GPUBufferBinding => {
    temporary.push(buffer);
    return { buffer };
  };
  const { headDim, rope, vOffset } = problem;
  const [key, value, k, v] = [operands.key, operands.value, operands.k, operands.v]
    .map((storage) => storage as GpuStorage);
  const unused = own(scratchBuffer(device, "unused", 16));
  const turns = rope && ropeTables.get(headDim, rope, endPosition(problem));
  const factors = own(smallBuffer(device, "storage", "factors", factorWords(problem)));
  const all = plan.passes.flatMap((pass, i) =>
    pass.dispatches.map((dispatch) => [kernels[i], pass, dispatch] as const)
  );
  return all.map(([kernel, pass, dispatch]): Dispatch => {
    const params = paramWords(problem, pass, dispatch, turns?.coarse ?? 0);
    return {
      kernel,
      resources: [
        own(smallBuffer(device, "uniform", "params", params)),
        own(smallBuffer(device, "storage", "slots", slotWords(problem, dispatch))),
        factors,
        key.binding,
        value.binding,
        k.window(dispatch.windows?.k),
        vOffset === null ? v.window(dispatch.windows?.v) : own(scratchBuffer(device, "no v", 16)),
        operands.kvScales ? (operands.kvScales as GpuStorage).binding : unused,
        turns ? { buffer: turns.buffer } : unused,
      ],
      grid: dispatch.grid,
    };
  });
}
