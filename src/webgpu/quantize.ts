/**
 * The quantize family on WebGPU: dispatches of shaders/quantize.wgsl.
 *
 * @module
 */

import type { ConvertOperands } from "../backend.ts";
import type { ConvertProblem } from "../convert_problem.ts";
import { type GpuStorage, smallBuffer } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";
import { planQuantize, type QuantizePlan } from "./quantize_plan.ts";

/** Plans, compiles where needed, and submits a conversion. */
export async function runQuantize(
  context: GpuContext,
  problem: ConvertProblem,
  operands: ConvertOperands,
): Promise<void> {
  const rounding = await context.rounding();
  const plan = planQuantize(problem, context.capabilities, rounding);
  if (plan.dispatches.length === 0) return;
  const kernel = await context.kernels.get(plan.kernel);
  context.noteChoice("quantize", kernel.name, rounding.reason);
  await submit(
    context,
    "quantize",
    (temporary) => quantizeDispatches(context.device, plan, kernel, operands, temporary),
  );
}

/** A plan's dispatches, bound to operands; new buffers are entered in `temporary`. */
export function quantizeDispatches(
  device: GPUDevice,
  { factor, dispatches }: QuantizePlan,
  kernel: Kernel,
  operands: ConvertOperands,
  temporary: GPUBuffer[],
): Dispatch[] {
  const source = operands.source as GpuStorage;
  const result = operands.result as GpuStorage;
  return dispatches.map(({ numPieces, grid, ...windows }): Dispatch => {
    const words = Uint32Array.of(numPieces, 0);
    new Float32Array(words.buffer)[1] = factor;
    const params = smallBuffer(device, "uniform", "params", words);
    temporary.push(params);
    return {
      kernel,
      resources: [
        { buffer: params },
        source.window(windows.source),
        result.window(windows.result),
      ],
      grid,
    };
  });
}
