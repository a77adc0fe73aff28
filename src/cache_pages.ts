/**
 * A paged cache as callers give it, one tensor or a pair: its sizes, and where its elements lie. Pure.
 *
 * @module
 */

import type { CacheStrides } from "./attention_problem.ts";
import {
  cacheDims,
  cacheSizes,
  cacheStrides,
  checkValue,
  type TensorSpec,
} from "./attention_shapes.ts";
import type { KvDTypes } from "./dtype.ts";
import { OptionError, ShapeError } from "./errors.ts";
import type { KvLayout } from "./options.ts";
import type { PageSizes } from "./page_indices.ts";
import { show } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

/**
 * The tensors of a paged KV cache: one tensor `[pages, 2, pageSize, Hkv, D]`, or with `kvLayout: "HND"`
 * `[pages, 2, Hkv, pageSize, D]`; or a pair of tensors without the 2, whose head dims and dtypes may differ.
 */
export type CacheTensors = Tensor | readonly [k: Tensor, v: Tensor];

/** What a cache's shapes say. */
export interface CachePages extends PageSizes, KvDTypes {
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly headDimV: number;
  readonly kStrides: CacheStrides;
  readonly vStrides: CacheStrides;
  /** Where v begins in k's tensor, in elements; null where v has a tensor of its own. */
  readonly vOffset: number | null;
}

/** The tensors of a cache, with the names that errors give them: one, or two. */
export function cacheTensors<T>(value: T | readonly T[]): readonly (readonly [string, T])[] {
  if (!Array.isArray(value)) return [["kvCache", value as T]];
  const pair = value as readonly T[];
  if (pair.length === 2 && pair[0] !== pair[1]) {
    return [["kvCache[0]", pair[0]], ["kvCache[1]", pair[1]]];
  }
  throw new OptionError("kvCache", {
    got: pair.length === 2 ? "the same tensor twice" : `an array of ${pair.length}`,
    expected: "one tensor, or a pair [k, v] of two",
    hint: "One tensor [pages, 2, pageSize, Hkv, D] holds both, k first.",
  });
}

/** Checks the shapes of one tensor or two. Throws `ShapeError` or `DTypeError`. */
export function cachePages(specs: readonly TensorSpec[], layout: KvLayout): CachePages {
  return specs.length === 1
    ? joinedPages(specs[0], layout)
    : pairedPages(specs[0], specs[1], layout);
}

function joinedPages(spec: TensorSpec, layout: KvLayout): CachePages {
  const [numPages, two, ...rest] = checkDims("kvCache", spec, JOINED_DIMS[layout]);
  if (two !== 2) {
    throw new ShapeError("kvCache", {
      got: `${two} in the second dim (shape ${show(spec.shape)})`,
      expected: "2, for k and v",
      hint: "Give k and v as a pair of tensors, [k, v], where they are two.",
    });
  }
  const sizes = checkSizes("kvCache", spec, rest, layout);
  const strides = cacheStrides(layout, sizes);
  const page = 2 * strides.page;
  return {
    numPages,
    pageSize: sizes.length,
    numKvHeads: sizes.numKvHeads,
    headDim: sizes.headDim,
    headDimV: sizes.headDim,
    kDtype: spec.dtype,
    vDtype: spec.dtype,
    kStrides: { ...strides, page },
    vStrides: { ...strides, page },
    vOffset: strides.page,
  };
}

function pairedPages(k: TensorSpec, v: TensorSpec, layout: KvLayout): CachePages {
  const [numPages, ...rest] = checkDims("kvCache[0]", k, PAIR_DIMS[layout]);
  const sizes = checkSizes("kvCache[0]", k, rest, layout);
  const headDimV = checkValue(k, v, ["kvCache[0]", "kvCache[1]"]);
  return {
    numPages,
    pageSize: sizes.length,
    numKvHeads: sizes.numKvHeads,
    headDim: sizes.headDim,
    headDimV,
    kDtype: k.dtype,
    vDtype: v.dtype,
    kStrides: cacheStrides(layout, sizes),
    vStrides: cacheStrides(layout, { ...sizes, headDim: headDimV }),
    vOffset: null,
  };
}

/** The dims of a page, as errors name them. */
function pageDims(layout: KvLayout): readonly string[] {
  return cacheDims(layout).map((dim) => dim === "L" ? "pageSize" : dim);
}

/** The dims of a cache that is one tensor, and of each of a pair. */
const JOINED_DIMS = {
  NHD: ["pages", "2", ...pageDims("NHD")],
  HND: ["pages", "2", ...pageDims("HND")],
} as const;
const PAIR_DIMS = {
  NHD: ["pages", ...pageDims("NHD")],
  HND: ["pages", ...pageDims("HND")],
} as const;

function checkDims(
  subject: string,
  { shape }: TensorSpec,
  dims: readonly string[],
): readonly number[] {
  if (shape.length === dims.length) return shape;
  throw new ShapeError(subject, {
    got: `shape ${show(shape)}`,
    expected: `${dims.length} dims, [${dims.join(", ")}]`,
    hint: "A cache is one tensor [pages, 2, ...], or a pair [k, v] of tensors [pages, ...].",
  });
}

function checkSizes(
  subject: string,
  { shape }: TensorSpec,
  dims: readonly number[],
  layout: KvLayout,
): { readonly length: number; readonly numKvHeads: number; readonly headDim: number } {
  const sizes = cacheSizes(dims, layout);
  if (dims.every((dim) => dim > 0)) return sizes;
  throw new ShapeError(subject, {
    got: `shape ${show(shape)}`,
    expected: "a page size, heads and a head dim of at least 1",
    hint: `With kvLayout "${layout}", a page is [${pageDims(layout).join(", ")}].`,
  });
}
