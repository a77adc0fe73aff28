/**
 * Where the rows of a sequence lie in the pages of a cache: in runs that are one piece of memory each.
 * With NHD a run is the tokens of a page, with HND, and of scales always, those of a page and a head.
 * Pure.
 *
 * @module
 */

import type { CachePages } from "./cache_pages.ts";
import type { CopiedPart } from "./backend.ts";
import { bytesPerElement } from "./dtype.ts";
import { scaleStrides } from "./token_scales.ts";

/** Which rows of a cache: k's, v's, or the scales of tokens. */
export type CachePart = "k" | "v" | "scales";

/** How the rows of a part lie in its tensor, in bytes. */
interface PartLayout {
  /** Rows of a token. */
  readonly heads: number;
  /** Bytes of one. */
  readonly row: number;
  /** Where page 0 begins. */
  readonly first: number;
  readonly page: number;
  readonly head: number;
  /** Whether the heads of a token lie side by side. */
  readonly isByToken: boolean;
}

function layoutOf(cache: CachePages, part: CachePart): PartLayout {
  const { numKvHeads, headDim, headDimV, kStrides, vStrides, vOffset, kDtype, vDtype, pageSize } =
    cache;
  if (part === "scales") {
    // Two floats a row: k's, then v's.
    const { page, head } = scaleStrides({ numKvHeads, tokens: pageSize });
    return {
      heads: numKvHeads,
      row: 8,
      first: 0,
      page: 8 * page,
      head: 8 * head,
      isByToken: false,
    };
  }
  const size = bytesPerElement(part === "k" ? kDtype : vDtype);
  const [dim, strides, first] = part === "k"
    ? [headDim, kStrides, 0]
    : [headDimV, vStrides, vOffset ?? 0];
  return {
    heads: numKvHeads,
    row: dim * size,
    first: first * size,
    page: strides.page * size,
    head: strides.head * size,
    isByToken: strides.head === dim,
  };
}

/** Bytes of one token in all heads. */
export function tokenBytes(cache: CachePages, part: CachePart): number {
  const { heads, row } = layoutOf(cache, part);
  return heads * row;
}

/**
 * The runs of the first `tokens` tokens of `pages`, from the cache's tensor (`from`) to one piece of
 * memory in which runs follow each other (`to`), in bytes.
 */
export function cacheRuns(
  cache: CachePages,
  part: CachePart,
  pages: ArrayLike<number>,
  tokens: number,
): CopiedPart[] {
  const { pageSize } = cache;
  const { heads, row, first, page, head, isByToken } = layoutOf(cache, part);
  const runs: CopiedPart[] = [];
  let to = 0;
  const add = (from: number, size: number) => {
    runs.push({ from, to, size });
    to += size;
  };
  for (let i = 0; i * pageSize < tokens; i++) {
    const count = Math.min(pageSize, tokens - i * pageSize);
    const begin = first + pages[i] * page;
    if (isByToken) add(begin, count * heads * row);
    else for (let h = 0; h < heads; h++) add(begin + h * head, count * row);
  }
  return runs;
}

/**
 * Rows of [token, head] in the order of the runs, or with `isBack` the other way round. With NHD they
 * are the same.
 */
export function reorderRows(
  bytes: Uint8Array,
  cache: CachePages,
  part: CachePart,
  isBack: boolean,
): Uint8Array {
  const { heads, row, isByToken } = layoutOf(cache, part);
  if (isByToken) return bytes;
  const { pageSize } = cache;
  const tokens = bytes.length / (row * heads);
  const result = new Uint8Array(bytes.length);
  for (let token = 0; token < tokens; token++) {
    const begin = token - token % pageSize;
    const count = Math.min(pageSize, tokens - begin);
    for (let head = 0; head < heads; head++) {
      const plain = (token * heads + head) * row;
      const inRun = (begin * heads + head * count + token - begin) * row;
      const [from, to] = isBack ? [inRun, plain] : [plain, inRun];
      result.set(bytes.subarray(from, from + row), to);
    }
  }
  return result;
}
