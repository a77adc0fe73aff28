/**
 * The decode family on WebGPU: planned dispatches of shaders/decode.wgsl, and the merge that ends them
 * where keys are split.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import type { AttentionOperands } from "../backend.ts";
import { type GpuStorage, scratchBuffer, smallBuffer } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import { type DecodePlan, planDecode } from "./decode_plan.ts";
import { longestRequest, paramWords, tableWords } from "./decode_tables.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";
import { mergeDispatch } from "./merge.ts";

/** The compiled kernels of a plan. */
export interface DecodeKernels {
  readonly decode: Kernel;
  readonly merge: Kernel | null;
}

/** Whether the decode kernel can do it: one query a request, the last, and nothing hidden. */
export function isDecode(problem: AttentionProblem): boolean {
  const { requests, mask, variant, headDim, headDimV } = problem;
  return mask === null && variant === null && headDim === headDimV &&
    requests.every((word, i) => i % REQUEST_WORDS !== 1 || word === 1);
}

/** Plans, compiles where needed, and submits a decode problem. */
export async function runDecode(
  context: GpuContext,
  problem: AttentionProblem,
  operands: AttentionOperands,
): Promise<void> {
  const plan = planDecode(problem, context.capabilities);
  const kernels = await compileDecode(context, plan);
  context.noteChoice("decode", kernels.decode.name, plan.reason);
  if (kernels.merge) context.noteChoice("merge", kernels.merge.name, "keys are split");
  if (plan.dispatches.length === 0) return;
  await submit(
    context,
    "decode",
    (temporary) => decodeDispatches(context, plan, kernels, problem, operands, temporary),
  );
}

/** Compiles a plan's kernels, or finds them in the cache. */
export async function compileDecode(
  { kernels }: GpuContext,
  { kernel, split }: DecodePlan,
): Promise<DecodeKernels> {
  const decode = await kernels.get(kernel);
  return { decode, merge: split && await kernels.get(split.merge.kernel) };
}

/** A plan's dispatches, bound to operands; new buffers are entered in `temporary`. */
export function decodeDispatches(
  { device, ropeTables }: GpuContext,
  plan: DecodePlan,
  kernels: DecodeKernels,
  problem: AttentionProblem,
  operands: AttentionOperands,
  temporary: GPUBuffer[],
): Dispatch[] {
  const own = (buffer: GPUBuffer): GPUBufferBinding => {
    temporary.push(buffer);
    return { buffer };
  };
  const { numQoHeads, headDim, rope, pageTable } = problem;
  const [q, k, v, out] = [operands.q, operands.k, operands.v, operands.out]
    .map((storage) => storage as GpuStorage);
  const lse = operands.lse as GpuStorage | null;
  const unused = own(smallBuffer(device, "storage", "unused", new Uint32Array(4)));
  const turns = rope && ropeTables.get(headDim, rope, longestRequest(problem));
  const pages = pageTable ? own(smallBuffer(device, "storage", "page table", pageTable)) : unused;

  const states = (plan.split?.states ?? 0) * numQoHeads;
  const results = plan.split
    ? [
      own(scratchBuffer(device, "partial out", states * headDim * 4)),
      own(scratchBuffer(device, "partial lse", states * 4)),
    ]
    // The layout is the same with and without lse; without it, nothing is written there.
    : [out.binding, lse?.binding ?? own(scratchBuffer(device, "no lse", 16))];

  const dispatches = plan.dispatches.map((dispatch): Dispatch => {
    const params = paramWords(problem, plan, dispatch, {
      writeLse: lse !== null,
      ropeCoarse: turns?.coarse ?? 0,
    });
    return {
      kernel: kernels.decode,
      resources: [
        own(smallBuffer(device, "uniform", "params", params)),
        own(smallBuffer(device, "storage", "tables", tableWords(problem, dispatch.stretches))),
        q.binding,
        k.window(dispatch.windows?.k),
        v.window(dispatch.windows?.v),
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
    out: out.binding,
    lse: lse?.binding ?? null,
    sinks: problem.sinks,
  }, temporary);
  return [...dispatches, merge];
}
