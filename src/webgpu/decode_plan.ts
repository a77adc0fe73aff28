/**
 * Planning of decode: from a problem and a device's capabilities to the kernel, its tables and its
 * dispatches. Pure; tested without a GPU.
 *
 * @module
 */

import { type AttentionProblem, isOtherBatch, REQUEST_WORDS } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import { LimitError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import { decodeKernel, reasonOf } from "./decode_kernel.ts";
import { type DecodeShape, decodeShape } from "./decode_shape.ts";
import type { DecodeTuning } from "./decode_tuning.ts";
import { type Region, regionsOf, type Span, type Window, windowOf } from "./decode_windows.ts";
import { ALL_TOKENS, planStretches, type Stretch } from "./decode_stretches.ts";
import { foldGrid } from "./grid.ts";
import type { KernelRequest } from "./kernels.ts";
import { type MergePlan, planMerge } from "./merge_plan.ts";
import { checkScales, pagesOf } from "./scale_limits.ts";

/** All that decode does for one problem. */
export interface DecodePlan {
  readonly family: "decode";
  readonly kernel: KernelRequest;
  /** Why this variant, for the report. */
  readonly reason: string;
  readonly shape: DecodeShape;
  readonly dispatches: readonly DecodeDispatch[];
  /** Where requests are split: the states in between, and the merge that ends them. */
  readonly split: {
    /** Rows of partial results, each [numQoHeads, headDim] in float32, with its lse. */
    readonly states: number;
    readonly merge: MergePlan;
  } | null;
}

/** One dispatch of shaders/decode.wgsl. */
export interface DecodeDispatch {
  readonly stretches: readonly Stretch[];
  readonly heads: Span;
  readonly numWork: number;
  readonly grid: readonly [number, number];
  /** The parts of k and v that are bound; null is all. */
  readonly windows: { readonly k: Window; readonly v: Window } | null;
}

/**
 * Plans a decode problem. Throws `LimitError`, or `ShaderError` where no exact way exists.
 *
 * @param before What was planned last for the same capabilities and tuning: its kernel serves again
 *   where nothing but the batch is another, as from token to token.
 */
export function planDecode(
  problem: AttentionProblem,
  capabilities: Capabilities,
  tuning?: Partial<DecodeTuning>,
  before?: { readonly problem: AttentionProblem; readonly plan: DecodePlan } | null,
): DecodePlan {
  const alike = before && isOtherBatch(before.problem, problem) ? before.plan : null;
  const shape = decodeShape(problem, capabilities, tuning, alike?.shape);
  checkBindings(problem, capabilities);
  const numPages = pagesOf(problem);
  checkScales(problem, numPages, capabilities.limits);
  const regions = planRegions(problem, numPages, capabilities);
  const { ofRegions, counts, isSplit } = planStretches(problem, shape, regions);
  const dispatches = regions.flatMap((region, i): DecodeDispatch[] => {
    const stretches = ofRegions[i];
    if (stretches.length === 0) return [];
    const { heads } = region;
    const numWork = stretches.length * (heads[1] - heads[0]) * shape.headBlocks;
    const windows = regions.length === 1 ? null : {
      k: windowOf(region, windowOptions(problem, capabilities, "k")),
      v: windowOf(region, windowOptions(problem, capabilities, "v")),
    };
    const grid = foldGrid(numWork, capabilities.limits);
    return [{ stretches, heads, numWork, grid, windows }];
  });
  const isKnown = alike?.shape === shape && (alike.split !== null) === isSplit;
  return {
    family: "decode",
    kernel: isKnown ? alike.kernel : decodeKernel(problem, capabilities, shape, isSplit),
    reason: isKnown ? alike.reason : reasonOf(problem, capabilities, shape),
    shape,
    dispatches,
    split: isSplit ? planStates(problem, capabilities, counts) : null,
  };
}

/** The whole cache, or the parts that fit a binding. */
function planRegions(
  problem: AttentionProblem,
  numPages: number,
  capabilities: Capabilities,
): Region[] {
  const { numRequests, numKvHeads, requests, pageTable } = problem;
  let tokens = 1;
  for (let request = 0; request < numRequests; request++) {
    const keys = requests[request * REQUEST_WORDS + 2];
    if (keys > tokens) tokens = keys;
  }
  if (pageTable !== null) tokens = Math.min(tokens, problem.pageSize);
  const whole: Region = { pages: [0, numPages], tokens: [0, tokens], heads: [0, numKvHeads] };
  const k = windowOptions(problem, capabilities, "k");
  const v = windowOptions(problem, capabilities, "v");
  const regions = regionsOf(whole, k).flatMap((region) => regionsOf(region, v));
  if (regions.length > 1 && pageTable !== null) {
    throw new LimitError("kvCache", {
      got: `a paged cache of ${windowOf(whole, k).size} bytes`,
      expected: `at most ${capabilities.limits.maxStorageBufferBindingSize}, one binding`,
      hint: "Give k and v as a pair of tensors, or split the pages over several caches.",
    });
  }
  return pageTable === null ? regions : [{ ...whole, tokens: [0, ALL_TOKENS] }];
}

function windowOptions(
  { kStrides, vStrides, headDim, kDtype, vDtype }: AttentionProblem,
  { limits }: Capabilities,
  name: "k" | "v",
) {
  return {
    strides: name === "k" ? kStrides : vStrides,
    headDim,
    elementBytes: bytesPerElement(name === "k" ? kDtype : vDtype),
    bindingBytes: limits.maxStorageBufferBindingSize,
    alignment: limits.minStorageBufferOffsetAlignment,
  };
}

/** q and the results are bound whole. */
function checkBindings(
  { numRequests, numQoHeads, headDim, qDtype, outDtype }: AttentionProblem,
  { limits }: Capabilities,
): void {
  for (const [name, dtype] of [["q", qDtype], ["out", outDtype]] as const) {
    const bytes = numRequests * numQoHeads * headDim * bytesPerElement(dtype);
    if (bytes <= limits.maxStorageBufferBindingSize) continue;
    throw new LimitError(name, {
      got: `${bytes} bytes`,
      expected: `at most ${limits.maxStorageBufferBindingSize}, this device's ` +
        "maxStorageBufferBindingSize",
      hint: "Split the batch, or request the GPUDevice with the adapter's limits.",
    });
  }
}

/** The merge of the states of every request, of which each has so many. */
function planStates(
  problem: AttentionProblem,
  capabilities: Capabilities,
  counts: Uint32Array,
): NonNullable<DecodePlan["split"]> {
  const { numRequests, numQoHeads, headDim, outDtype, sinks, lseScale } = problem;
  const rows = new Uint32Array(numRequests * 4);
  let states = 0;
  for (let request = 0; request < numRequests; request++) {
    rows[4 * request] = states;
    rows[4 * request + 1] = counts[request];
    states += counts[request];
  }
  const limit = capabilities.limits.maxStorageBufferBindingSize;
  const stateBytes = states * numQoHeads * headDim * 4;
  if (stateBytes > limit) {
    throw new LimitError("k", {
      got: `${stateBytes} bytes of partial results`,
      expected: `at most ${limit}, one binding of this device`,
      hint: "Split the batch.",
    });
  }
  const merge = planMerge(
    { numRows: numRequests, numHeads: numQoHeads, headDim, vDtype: "float32", outDtype, rows },
    capabilities,
    { hasSinks: sinks !== null, lseScale },
  );
  return { states, merge };
}
