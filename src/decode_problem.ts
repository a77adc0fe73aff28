/**
 * Decode: from the shapes, dtypes and options of a call to an {@linkcode AttentionProblem}. Pure;
 * whatever is wrong with a call is found here, before anything is allocated.
 *
 * @module
 */

import { type AttentionProblem, type CacheStrides, REQUEST_WORDS } from "./attention_problem.ts";
import type { DType } from "./dtype.ts";
import { DTypeError, ShapeError } from "./errors.ts";
import {
  checkDecodeOptions,
  checkKvLayout,
  checkReturnLse,
  checkSeqLens,
  type DecodeSettings,
  PADDED_DECODE_OPTIONS,
  SINGLE_DECODE_OPTIONS,
} from "./decode_options.ts";
import type { KvLayout, PaddedDecodeOptions } from "./options.ts";
import { show } from "./shape.ts";

/** The part of a tensor that planning sees. */
export interface TensorSpec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** A decode call that is known to be right. */
export interface DecodeCall {
  readonly problem: AttentionProblem;
  readonly outShape: readonly number[];
  readonly lseShape: readonly number[];
  readonly returnLse: boolean;
}

/** Checks `batchDecodeWithPaddedKvCache`: q [B, Hq, D], k and v [B, L, Hkv, D] or its HND. */
export function paddedDecode(
  q: TensorSpec,
  k: TensorSpec,
  v: TensorSpec,
  options: PaddedDecodeOptions,
): DecodeCall {
  const [batch, numQoHeads, headDim] = checkRank("q", q, ["B", "Hq", "D"]);
  const layout = checkKvLayout(options, PADDED_DECODE_OPTIONS);
  const cacheDims = layout === "NHD" ? ["B", "L", "Hkv", "D"] : ["B", "Hkv", "L", "D"];
  const [cacheBatch, ...rest] = checkRank("k", k, cacheDims);
  if (cacheBatch !== batch) {
    throw new ShapeError("k", {
      got: `a batch of ${cacheBatch} (shape ${show(k.shape)})`,
      expected: `q's batch of ${batch} (shape ${show(q.shape)})`,
      hint: "The first dim of q, k and v is the batch.",
    });
  }
  const cache = cacheSizes(rest, layout);
  checkCache(q, k, v, numQoHeads, headDim, cache);
  const settings = checkDecodeOptions(options, { ...cache, numQoHeads }, q.dtype);
  const kvLens = checkSeqLens(options.seqLens, batch, cache.length);
  return {
    problem: decodeProblem(q, k, settings, { layout, numQoHeads, cache, kvLens }),
    outShape: [batch, numQoHeads, headDim],
    lseShape: [batch, numQoHeads],
    returnLse: checkReturnLse(options),
  };
}

/** Checks `singleDecodeWithKvCache`: q [Hq, D], k and v [L, Hkv, D] or its HND. */
export function singleDecode(
  q: TensorSpec,
  k: TensorSpec,
  v: TensorSpec,
  options: PaddedDecodeOptions,
): DecodeCall {
  const [numQoHeads, headDim] = checkRank("q", q, ["Hq", "D"]);
  const layout = checkKvLayout(options, SINGLE_DECODE_OPTIONS);
  const cacheDims = layout === "NHD" ? ["L", "Hkv", "D"] : ["Hkv", "L", "D"];
  const cache = cacheSizes(checkRank("k", k, cacheDims), layout);
  checkCache(q, k, v, numQoHeads, headDim, cache);
  const settings = checkDecodeOptions(options, { ...cache, numQoHeads }, q.dtype);
  return {
    problem: decodeProblem(q, k, settings, { layout, numQoHeads, cache, kvLens: [cache.length] }),
    outShape: [numQoHeads, headDim],
    lseShape: [numQoHeads],
    returnLse: checkReturnLse(options),
  };
}

/** The dims of one request's part of a cache. */
interface CacheSizes {
  readonly length: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

function cacheSizes([a, b, headDim]: readonly number[], layout: KvLayout): CacheSizes {
  return layout === "NHD"
    ? { length: a, numKvHeads: b, headDim }
    : { length: b, numKvHeads: a, headDim };
}

function checkRank(name: string, spec: TensorSpec, dims: readonly string[]): readonly number[] {
  if (spec.shape.length === dims.length) return spec.shape;
  throw new ShapeError(name, {
    got: `shape ${show(spec.shape)}`,
    expected: `${dims.length} dims, [${dims.join(", ")}]`,
    hint: "kvLayout decides the order of k's and v's dims; q is [..., heads, dim] in both layouts.",
  });
}

function checkCache(
  q: TensorSpec,
  k: TensorSpec,
  v: TensorSpec,
  numQoHeads: number,
  headDim: number,
  cache: CacheSizes,
): void {
  if (headDim < 1 || cache.headDim !== headDim) {
    throw new ShapeError("k", {
      got: `a head dim of ${cache.headDim} (shape ${show(k.shape)})`,
      expected: `q's head dim of ${headDim}, at least 1 (shape ${show(q.shape)})`,
      hint: "The last dim of q, k and v is the head dim.",
    });
  }
  if (show(v.shape) !== show(k.shape)) {
    throw new ShapeError("v", {
      got: `shape ${show(v.shape)}`,
      expected: `k's shape, ${show(k.shape)}`,
      hint: "k and v have one shape.",
    });
  }
  const { numKvHeads } = cache;
  if (numQoHeads < 1 || numKvHeads < 1 || numQoHeads % numKvHeads !== 0) {
    throw new ShapeError("q", {
      got: `${numQoHeads} query heads over ${numKvHeads} KV heads`,
      expected: "a positive multiple of the number of KV heads",
      hint: "Any group size will do, but every KV head must serve equally many query heads; " +
        "if the KV heads are not what you meant, look at kvLayout.",
    });
  }
  if (v.dtype !== k.dtype) {
    throw new DTypeError("v", {
      got: v.dtype,
      expected: `k's dtype, ${k.dtype}`,
      hint: "k and v have one dtype.",
    });
  }
}

/** Strides of a dense cache, in elements. */
function cacheStrides(
  layout: KvLayout,
  { length, numKvHeads, headDim }: CacheSizes,
): CacheStrides {
  const page = length * numKvHeads * headDim;
  return layout === "NHD"
    ? { page, token: numKvHeads * headDim, head: headDim }
    : { page, token: headDim, head: length * headDim };
}

function decodeProblem(
  q: TensorSpec,
  k: TensorSpec,
  settings: DecodeSettings,
  { layout, numQoHeads, cache, kvLens }: {
    layout: KvLayout;
    numQoHeads: number;
    cache: CacheSizes;
    kvLens: readonly number[];
  },
): AttentionProblem {
  const requests = new Uint32Array(kvLens.length * REQUEST_WORDS);
  kvLens.forEach((kvLen, request) =>
    requests.set([request, 1, kvLen, request], request * REQUEST_WORDS)
  );
  const { headDim, numKvHeads } = cache;
  const rows = { token: numQoHeads * headDim, head: headDim };
  const strides = cacheStrides(layout, cache);
  return {
    ...settings,
    numRequests: kvLens.length,
    numQoHeads,
    numKvHeads,
    headDim,
    headDimV: headDim,
    qDtype: q.dtype,
    kvDtype: k.dtype,
    qStrides: rows,
    outStrides: rows,
    kStrides: strides,
    vStrides: strides,
    pageSize: Math.max(1, cache.length),
    requests,
    pageTable: null,
    causal: false, // the one query is the last token: it sees every key
    mask: null,
  };
}
