/**
 * Caches larger than one binding: the parts of a cache that one dispatch may see. Pure.
 *
 * @module
 */

import type { CacheStrides } from "../attention_problem.ts";

/** From one index up to another. */
export type Span = readonly [first: number, end: number];

/** A box of a cache: some pages, tokens of each, and KV heads. */
export interface Region {
  readonly pages: Span;
  readonly tokens: Span;
  readonly heads: Span;
}

/** What of a cache a binding holds, in bytes. */
export interface Window {
  readonly offset: number;
  readonly size: number;
}

/** How a cache lies in memory, in elements, and what a binding may hold. */
export interface WindowOptions {
  readonly strides: CacheStrides;
  readonly headDim: number;
  readonly elementBytes: number;
  /** The most bytes of a binding, and what its offset must be a multiple of. */
  readonly bindingBytes: number;
  readonly alignment: number;
}

const DIMENSIONS = ["pages", "tokens", "heads"] as const;
const STRIDE = { pages: "page", tokens: "token", heads: "head" } as const;

/** Cuts a region along its longest strides until each part fits a binding. */
export function regionsOf(region: Region, options: WindowOptions): Region[] {
  const { strides, elementBytes, bindingBytes, alignment } = options;
  if (windowOf(region, options).size + alignment <= bindingBytes) return [region];
  const dimension = DIMENSIONS
    .filter((name) => region[name][1] - region[name][0] > 1)
    .sort((a, b) => strides[STRIDE[b]] - strides[STRIDE[a]])[0];
  // A single row that does not fit: the caller checks that bindings hold one.
  if (!dimension) return [region];
  const [first, end] = region[dimension];
  const one = windowOf({ ...region, [dimension]: [first, first + 1] }, options).size + alignment;
  const more = Math.floor((bindingBytes - one) / (strides[STRIDE[dimension]] * elementBytes));
  // What does not fit whole must get smaller, whatever rounding made of the rest.
  const step = Math.max(1, Math.min(1 + more, end - first - 1));
  const parts: Region[] = [];
  for (let from = first; from < end; from += step) {
    const part = { ...region, [dimension]: [from, Math.min(end, from + step)] as Span };
    parts.push(...regionsOf(part, options));
  }
  return parts;
}

/** The bytes of a cache in which a region lies. */
export function windowOf(
  { pages, tokens, heads }: Region,
  { strides, headDim, elementBytes, alignment }: WindowOptions,
): Window {
  const row = (page: number, token: number, head: number) =>
    elementBytes *
    ((strides.offset ?? 0) + page * strides.page + token * strides.token + head * strides.head);
  const first = row(pages[0], tokens[0], heads[0]);
  const end = row(pages[1] - 1, tokens[1] - 1, heads[1] - 1) + headDim * elementBytes;
  const offset = Math.floor(first / alignment) * alignment;
  return { offset, size: Math.ceil((end - offset) / 16) * 16 };
}
