/**
 * Decode: from the shapes, dtypes and options of a call to an {@linkcode AttentionProblem}. Pure;
 * whatever is wrong with a call is found here, before anything is allocated.
 *
 * @module
 */

import { type AttentionProblem, type CacheStrides, REQUEST_WORDS } from "./attention_problem.ts";
import type { DType } from "./dtype.ts";
import { DTypeError, OptionError, ShapeError } from "./errors.ts";
import {
  checkDecodeOptions,
  type CheckedDecodeOptions,
  type KvLayout,
  PADDED_DECODE_OPTIONS,
  type PaddedDecodeOptions,
  SINGLE_DECODE_OPTIONS,
} from "./options.ts";
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
  const checked = checkDecodeOptions(options, PADDED_DECODE_OPTIONS, headDim);
  const cacheDims = checked.kvLayout === "NHD" ? ["B", "L", "Hkv", "D"] : ["B", "Hkv", "L", "D"];
  const [cacheBatch, ...rest] = checkRank("k", k, cacheDims);
  if (cacheBatch !== batch) {
    throw new ShapeError("k", {
      got: `a batch of ${cacheBatch} (shape ${show(k.shape)})`,
      expected: `q's batch of ${batch} (shape ${show(q.shape)})`,
      hint: "The first dim of q, k and v is the batch.",
    });
  }
  const cache = cacheSizes(rest, checked.kvLayout);
  checkCache(q, k, v, numQoHeads, headDim, cache);
  return {
    problem: decodeProblem(q, k, checked, {
      numQoHeads,
      headDim,
      cache,
      kvLens: checkSeqLens(checked.seqLens, batch, cache.length),
    }),
    outShape: [batch, numQoHeads, headDim],
    lseShape: [batch, numQoHeads],
    returnLse: checked.returnLse,
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
  const checked = checkDecodeOptions(options, SINGLE_DECODE_OPTIONS, headDim);
  const cacheDims = checked.kvLayout === "NHD" ? ["L", "Hkv", "D"] : ["Hkv", "L", "D"];
  const cache = cacheSizes(checkRank("k", k, cacheDims), checked.kvLayout);
  checkCache(q, k, v, numQoHeads, headDim, cache);
  return {
    problem: decodeProblem(q, k, checked, { numQoHeads, headDim, cache, kvLens: [cache.length] }),
    outShape: [numQoHeads, headDim],
    lseShape: [numQoHeads],
    returnLse: checked.returnLse,
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
  if (q.dtype === "float8_e4m3fn" || q.dtype === "float8_e5m2") {
    throw new DTypeError("q", {
      got: q.dtype,
      expected: "float32, float16 or bfloat16",
      hint: "k and v may be FP8; the output has q's dtype.",
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

function checkSeqLens(
  seqLens: readonly number[] | undefined,
  batch: number,
  length: number,
): readonly number[] {
  if (seqLens === undefined) return new Array(batch).fill(length);
  if (seqLens.length !== batch) {
    throw new OptionError("options.seqLens", {
      got: `${seqLens.length} lengths`,
      expected: `${batch}, one a request`,
      hint: "Leave seqLens out when every request uses the whole cache.",
    });
  }
  seqLens.forEach((value, request) => {
    if (Number.isInteger(value) && value >= 0 && value <= length) return;
    throw new OptionError("options.seqLens", {
      got: `${show(value)} for request ${request}`,
      expected: `an integer from 0 to ${length}, the cache's length`,
      hint: "A length counts the keys in use, from the beginning of the request's cache.",
    });
  });
  return seqLens;
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
  options: CheckedDecodeOptions,
  { numQoHeads, headDim, cache, kvLens }: {
    numQoHeads: number;
    headDim: number;
    cache: CacheSizes;
    kvLens: readonly number[];
  },
): AttentionProblem {
  const requests = new Uint32Array(kvLens.length * REQUEST_WORDS);
  kvLens.forEach((kvLen, request) =>
    requests.set([request, 1, kvLen, request], request * REQUEST_WORDS)
  );
  const rows = { token: numQoHeads * headDim, head: headDim };
  const strides = cacheStrides(options.kvLayout, cache);
  return {
    numRequests: kvLens.length,
    numQoHeads,
    numKvHeads: cache.numKvHeads,
    headDim,
    qDtype: q.dtype,
    kvDtype: k.dtype,
    outDtype: q.dtype,
    qStrides: rows,
    outStrides: rows,
    kStrides: strides,
    vStrides: strides,
    pageSize: Math.max(1, cache.length),
    requests,
    pageTable: null,
    causal: false, // the one query is the last token: it sees every key
    windowLeft: null,
    logitScales: new Float32Array(numQoHeads).fill(options.smScale * options.kScale),
    outScales: new Float32Array(numQoHeads).fill(options.vScale),
    rope: null,
    alibiSlopes: null,
    logitsSoftCap: null,
    sinks: null,
    lseScale: 1,
  };
}
