/**
 * Where the rows of a sequence lie in the pages of a cache: in runs that are one piece of memory each.
 * With NHD a run is the tokens of a page, with HND those of a page and a head. Pure.
 *
 * @module
 */

import type { CachePages } from "./cache_pages.ts";
import type { CopiedPart } from "./backend.ts";
import { bytesPerElement } from "./dtype.ts";

/** Which rows of a cache: k's or v's. */
export type CachePart = "k" | "v";

/** Bytes of the row of one token and head. */
export function rowBytes({ dtype, headDim, headDimV }: CachePages, part: CachePart): number {
  return bytesPerElement(dtype) * (part === "k" ? headDim : headDimV);
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
  const { kStrides, vStrides, vOffset, pageSize, numKvHeads, dtype } = cache;
  const strides = part === "k" ? kStrides : vStrides;
  const first = part === "k" ? 0 : vOffset ?? 0;
  const size = bytesPerElement(dtype);
  const row = rowBytes(cache, part);
  const runs: CopiedPart[] = [];
  let to = 0;
  const add = (element: number, bytes: number) => {
    runs.push({ from: element * size, to, size: bytes });
    to += bytes;
  };
  for (let i = 0; i * pageSize < tokens; i++) {
    const count = Math.min(pageSize, tokens - i * pageSize);
    const page = first + pages[i] * strides.page;
    if (isByToken(cache, part)) add(page, count * numKvHeads * row);
    else {
      for (let head = 0; head < numKvHeads; head++) add(page + head * strides.head, count * row);
    }
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
  if (isByToken(cache, part)) return bytes;
  const { pageSize, numKvHeads } = cache;
  const row = rowBytes(cache, part);
  const tokens = bytes.length / (row * numKvHeads);
  const result = new Uint8Array(bytes.length);
  for (let token = 0; token < tokens; token++) {
    const begin = token - token % pageSize;
    const count = Math.min(pageSize, tokens - begin);
    for (let head = 0; head < numKvHeads; head++) {
      const plain = (token * numKvHeads + head) * row;
      const inRun = (begin * numKvHeads + head * count + token - begin) * row;
      const [from, to] = isBack ? [inRun, plain] : [plain, inRun];
      result.set(bytes.subarray(from, from + row), to);
    }
  }
  return result;
}

/** Whether the heads of a token lie side by side. */
function isByToken(
  { kStrides, vStrides, headDim, headDimV }: CachePages,
  part: CachePart,
): boolean {
  return part === "k" ? kStrides.head === headDim : vStrides.head === headDimV;
}
