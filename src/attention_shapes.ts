/**
 * The shapes and dtypes of q, k and v: checks that all attention calls share, and where the elements
 * of a dense cache lie. Pure.
 *
 * @module
 */

import type { AttentionProblem, CacheStrides } from "./attention_problem.ts";
import type { DType } from "./dtype.ts";
import { DTypeError, ShapeError } from "./errors.ts";
import type { KvLayout } from "./options.ts";
import { isSameShape, show } from "./shape.ts";
import type { ScaleSizes } from "./token_scales.ts";

/** The part of a tensor that planning sees. */
export interface TensorSpec {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** A call that is known to be right. */
export interface AttentionCall {
  readonly problem: AttentionProblem;
  readonly outShape: readonly number[];
  readonly lseShape: readonly number[];
  readonly returnLse: boolean;
  /** Whether the results have rows that belong to no query. */
  readonly hasPadding: boolean;
}

/** The dims of one request's part of a cache. */
export interface CacheSizes {
  readonly length: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** The dims of a cache without its batch, as errors name them. */
export function cacheDims(layout: KvLayout): readonly string[] {
  return layout === "NHD" ? ["L", "Hkv", "D"] : ["Hkv", "L", "D"];
}

/** The sizes of a cache without its batch. */
export function cacheSizes([a, b, headDim]: readonly number[], layout: KvLayout): CacheSizes {
  return layout === "NHD"
    ? { length: a, numKvHeads: b, headDim }
    : { length: b, numKvHeads: a, headDim };
}

/** The shape, which must have these dims. */
export function checkRank(
  name: string,
  spec: TensorSpec,
  dims: readonly string[],
): readonly number[] {
  if (spec.shape.length === dims.length) return spec.shape;
  throw new ShapeError(name, {
    got: `shape ${show(spec.shape)}`,
    expected: `${dims.length} dims, [${dims.join(", ")}]`,
    hint: "kvLayout decides the order of k's and v's dims; q is [..., heads, dim] in both layouts.",
  });
}

/** The sizes of a padded cache, which must have q's batch. */
export function checkPaddedCache(q: TensorSpec, k: TensorSpec, layout: KvLayout): CacheSizes {
  const [batch, ...rest] = checkRank("k", k, ["B", ...cacheDims(layout)]);
  if (batch !== q.shape[0]) {
    throw new ShapeError("k", {
      got: `a batch of ${batch} (shape ${show(k.shape)})`,
      expected: `q's batch of ${q.shape[0]} (shape ${show(q.shape)})`,
      hint: "The first dim of q, k and v is the batch.",
    });
  }
  return cacheSizes(rest, layout);
}

/** Checks q, whose last two dims are heads and head dim, against k. */
export function checkQueryAndKey(q: TensorSpec, k: TensorSpec, cache: CacheSizes): void {
  const [numQoHeads, headDim] = q.shape.slice(-2);
  if (headDim < 1 || cache.headDim !== headDim) {
    throw new ShapeError("k", {
      got: `a head dim of ${cache.headDim} (shape ${show(k.shape)})`,
      expected: `q's head dim of ${headDim}, at least 1 (shape ${show(q.shape)})`,
      hint: "The last dim of q and k is the head dim.",
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
}

/** Checks v, which must have k's shape. */
export function checkSameValue(k: TensorSpec, v: TensorSpec): void {
  if (!isSameShape(v.shape, k.shape)) {
    throw new ShapeError("v", {
      got: `shape ${show(v.shape)}`,
      expected: `k's shape, ${show(k.shape)}`,
      hint: "k and v have one shape.",
    });
  }
}

/** What errors name k and v. */
type KeyAndValueNames = readonly [k: string, v: string];

/** Checks v, which must have k's shape but for the head dim; v's head dim. */
export function checkValue(
  k: TensorSpec,
  v: TensorSpec,
  names: KeyAndValueNames = ["k", "v"],
): number {
  const outer = k.shape.slice(0, -1);
  const headDimV = v.shape[k.shape.length - 1];
  if (!isSameShape(v.shape.slice(0, -1), outer) || headDimV < 1) {
    throw new ShapeError(names[1], {
      got: `shape ${show(v.shape)}`,
      expected: `${names[0]}'s shape, ${show(k.shape)}, with a head dim of at least 1`,
      hint: "k and v have one shape, but for the last dim, the head dim.",
    });
  }
  return headDimV;
}

/** Checks v, which must have k's dtype. */
export function checkOneDtype(
  k: TensorSpec,
  v: TensorSpec,
  names: KeyAndValueNames = ["k", "v"],
): void {
  if (v.dtype === k.dtype) return;
  throw new DTypeError(names[1], {
    got: v.dtype,
    expected: `${names[0]}'s dtype, ${k.dtype}`,
    hint: "What is stored has one dtype before it is converted.",
  });
}

/** What the scales of a dense cache's tokens are of; null is no batch. */
export function scaleSizes({ length, numKvHeads }: CacheSizes, batch: number | null): ScaleSizes {
  return { pages: batch, numKvHeads, tokens: length };
}

/** Strides of a dense cache whose pages are requests, in elements. */
export function cacheStrides(
  layout: KvLayout,
  { length, numKvHeads, headDim }: CacheSizes,
): CacheStrides {
  const page = length * numKvHeads * headDim;
  return layout === "NHD"
    ? { page, token: numKvHeads * headDim, head: headDim }
    : { page, token: headDim, head: length * headDim };
}
