/**
 * The merge family on WebGPU: one dispatch of shaders/merge.wgsl.
 *
 * @module
 */

import type { MergeProblem } from "../attention_problem.ts";
import type { MergeOperands } from "../backend.ts";
import type { GpuStorage } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import { submit } from "./dispatch.ts";
import { type Memory, temporaryMemory } from "./memory.ts";
import { type MergePlan, planMerge } from "./merge_plan.ts";

/** What a merge is bound to: buffers, or the slots of a template. */
export interface MergeBindings<Slot> {
  readonly vA: GPUBufferBinding;
  readonly sA: GPUBufferBinding;
  readonly vB: GPUBufferBinding;
  readonly sB: GPUBufferBinding;
  readonly out: GPUBufferBinding | Slot;
  readonly lse: GPUBufferBinding | Slot;
  /** Whether lse is written. */
  readonly writeLse: boolean;
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
  await submit(context, "merge", (temporary) => [{
    kernel,
    resources: mergeResources<never>(temporaryMemory(context.device, temporary), plan, {
      vA: binding("vA"),
      sA: binding("sA"),
      vB: binding("vB"),
      sB: binding("sB"),
      out: binding("out"),
      lse: binding("lse"),
      writeLse: true,
    }),
    grid: plan.grid,
  }]);
}

/** What a merge is bound to, in the order of the kernel. */
export function mergeResources<Slot>(
  memory: Memory,
  plan: MergePlan,
  { vA, sA, vB, sB, out, lse, writeLse, sinks }: MergeBindings<Slot>,
): (GPUBufferBinding | Slot)[] {
  const params = Uint32Array.of(plan.numWork, plan.numHeads, 0, writeLse ? 1 : 0);
  new Float32Array(params.buffer)[2] = plan.lseScale;
  const sinkWords = sinks && new Uint32Array(sinks.map((sink) => sink * Math.LOG2E).buffer);
  return [
    memory.words("uniform", "params", params),
    memory.words("storage", "rows", plan.rows),
    ...[vA, sA, vB, sB],
    out,
    lse,
    ...(sinkWords ? [memory.words("storage", "sinks", sinkWords)] : []),
  ];
}
