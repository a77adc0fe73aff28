/**
 * The merge family on WebGPU: one dispatch of shaders/merge.wgsl.
 *
 * @module
 */

import type { MergeProblem } from "../attention_problem.ts";
import type { MergeOperands } from "../backend.ts";
import { type GpuStorage, scratchBuffer, smallBuffer } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";
import { type MergePlan, planMerge } from "./merge_plan.ts";

/** What a merge is bound to. */
export interface MergeBindings {
  readonly vA: GPUBufferBinding;
  readonly sA: GPUBufferBinding;
  readonly vB: GPUBufferBinding;
  readonly sB: GPUBufferBinding;
  readonly out: GPUBufferBinding;
  readonly lse: GPUBufferBinding | null;
  /** Natural logarithms, one a head, where the plan has sinks. */
  readonly sinks?: Float32Array | null;
}

/** Plans, compiles where needed, and submits a merge. */
export async function runMerge(
  context: GpuContext,
  problem: MergeProblem,
  operands: MergeOperands,
): Promise<void> {
  const plan = planMerge(problem, context.capabilities);
  if (plan.numWork === 0) return;
  const kernel = await context.kernels.get(plan.kernel);
  context.noteChoice("merge", kernel.name, "the only one");
  const binding = (name: keyof MergeOperands) => (operands[name] as GpuStorage).binding;
  await submit(context, "merge", (temporary) => [
    mergeDispatch(context.device, plan, kernel, {
      vA: binding("vA"),
      sA: binding("sA"),
      vB: binding("vB"),
      sB: binding("sB"),
      out: binding("out"),
      lse: binding("lse"),
    }, temporary),
  ]);
}

/** A merge bound to its operands; new buffers are entered in `temporary`. */
export function mergeDispatch(
  device: GPUDevice,
  plan: MergePlan,
  kernel: Kernel,
  bindings: MergeBindings,
  temporary: GPUBuffer[],
): Dispatch {
  const own = (buffer: GPUBuffer): GPUBufferBinding => {
    temporary.push(buffer);
    return { buffer };
  };
  const { vA, sA, vB, sB, out, lse, sinks } = bindings;
  const params = Uint32Array.of(plan.numWork, plan.numHeads, 0, lse ? 1 : 0);
  new Float32Array(params.buffer)[2] = plan.lseScale;
  const sinkWords = sinks && new Uint32Array(sinks.map((sink) => sink * Math.LOG2E).buffer);
  return {
    kernel,
    resources: [
      own(smallBuffer(device, "uniform", "params", params)),
      own(smallBuffer(device, "storage", "rows", plan.rows)),
      ...[vA, sA, vB, sB],
      out,
      lse ?? own(scratchBuffer(device, "no lse", 16)),
      ...(sinkWords ? [own(smallBuffer(device, "storage", "sinks", sinkWords))] : []),
    ],
    grid: plan.grid,
  };
}
