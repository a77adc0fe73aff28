/**
 * The prefill family on WebGPU: planned dispatches of shaders/prefill.wgsl, and the merge that ends
 * them where keys are split.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { AttentionOperands } from "../backend.ts";
import { type GpuStorage, scratchBuffer, smallBuffer } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import { longestRequest } from "./decode_tables.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";
import { mergeDispatch } from "./merge.ts";
import { planPrefill, type PrefillPlan } from "./prefill_plan.ts";
import { paramWords, tableWords } from "./prefill_tables.ts";

/** The compiled kernels of a plan. */
export interface PrefillKernels {
  readonly prefill: Kernel;
  readonly merge: Kernel | null;
}

/** Plans, compiles where needed, and submits a prefill problem. */
export async function runPrefill(
  context: GpuContext,
  problem: AttentionProblem,
  operands: AttentionOperands,
): Promise<void> {
  const plan = planOf(context, problem);
  const kernels = await compilePrefill(context, plan);
  context.noteChoice("prefill", kernels.prefill.name, plan.reason);
  if (kernels.merge) context.noteChoice("merge", kernels.merge.name, "keys are split");
  if (plan.dispatches.length === 0) return;
  await submit(
    context,
    "prefill",
    (temporary) => prefillDispatches(context, plan, kernels, problem, operands, temporary),
  );
}

/** Plans by their problems, which planned calls bring again and again. */
const plans = new WeakMap<GpuContext, WeakMap<AttentionProblem, PrefillPlan>>();

function planOf(context: GpuContext, problem: AttentionProblem): PrefillPlan {
  const known = plans.get(context) ?? new WeakMap<AttentionProblem, PrefillPlan>();
  plans.set(context, known);
  const plan = known.get(problem) ?? planPrefill(problem, context.capabilities);
  known.set(problem, plan);
  return plan;
}

/** Compiles a plan's kernels, or finds them in the cache. */
export async function compilePrefill(
  { kernels }: GpuContext,
  { kernel, split }: PrefillPlan,
): Promise<PrefillKernels> {
  const prefill = await kernels.get(kernel);
  return { prefill, merge: split && await kernels.get(split.merge.kernel) };
}

/** A plan's dispatches, bound to operands; new buffers are entered in `temporary`. */
export function prefillDispatches(
  { device, ropeTables }: GpuContext,
  plan: PrefillPlan,
  kernels: PrefillKernels,
  problem: AttentionProblem,
  operands: AttentionOperands,
  temporary: GPUBuffer[],
): Dispatch[] {
  const own = (buffer: GPUBuffer): GPUBufferBinding => {
    temporary.push(buffer);
    return { buffer };
  };
  const { numQoHeads, headDim, headDimV, rope, pageTable } = problem;
  const [q, k, v, out] = [operands.q, operands.k, operands.v, operands.out]
    .map((storage) => (storage as GpuStorage).binding);
  const lse = operands.lse as GpuStorage | null;
  const unused = own(smallBuffer(device, "storage", "unused", new Uint32Array(4)));
  const turns = rope && ropeTables.get(headDim, rope, longestRequest(problem));
  const pages = pageTable ? own(smallBuffer(device, "storage", "page table", pageTable)) : unused;

  const states = (plan.split?.states ?? 0) * numQoHeads;
  const results = plan.split
    ? [
      own(scratchBuffer(device, "partial out", states * headDimV * 4)),
      own(scratchBuffer(device, "partial lse", states * 4)),
    ]
    // The layout is the same with and without lse; without it, nothing is written there.
    : [out, lse?.binding ?? own(scratchBuffer(device, "no lse", 16))];

  const dispatches = plan.dispatches.map((dispatch): Dispatch => {
    const params = paramWords(problem, plan, dispatch, {
      writeLse: lse !== null,
      ropeCoarse: turns?.coarse ?? 0,
    });
    const tables = tableWords(problem, plan, dispatch);
    return {
      kernel: kernels.prefill,
      resources: [
        own(smallBuffer(device, "uniform", "params", params)),
        own(smallBuffer(device, "storage", "tables", tables)),
        ...[q, k, v],
        ...results,
        pages,
        turns ? { buffer: turns.buffer } : unused,
      ],
      grid: dispatch.grid,
    };
  });
  if (!plan.split) return dispatches;
  const sources = { vA: results[0], sA: results[1], vB: results[0], sB: results[1] };
  const merge = mergeDispatch(device, plan.split.merge, kernels.merge!, {
    ...sources,
    out,
    lse: lse?.binding ?? null,
    sinks: problem.sinks,
  }, temporary);
  return [...dispatches, merge];
}
