/**
 * Between the pages of a cache and the bytes of a saved sequence.
 *
 * @module
 */

import type { CacheMemory } from "./cache_memory.ts";
import type { CheckedCacheOptions } from "./cache_options.ts";
import { DTypeError, OptionError } from "./errors.ts";
import {
  encodeSequence,
  type SavedHeader,
  savedPart,
  type SavedSequence,
} from "./saved_sequence.ts";

function headerOf(
  { kDtype, vDtype, numLayers, numKvHeads, headDim, headDimV, scales }: CheckedCacheOptions,
  tokens: number,
): SavedHeader {
  return {
    kDtype,
    vDtype,
    numLayers,
    numKvHeads,
    headDimK: headDim,
    headDimV,
    tokenScales: scales !== null,
    tokens,
  };
}

/** The bytes of a sequence that has these pages. */
export async function saveRows(
  memory: CacheMemory,
  options: CheckedCacheOptions,
  pages: ArrayLike<number>,
  tokens: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  for (const layer of memory.layers.keys()) {
    for (const part of memory.parts) parts.push(await memory.read(layer, part, pages, tokens));
  }
  return encodeSequence(headerOf(options, tokens), parts);
}

/** Writes a saved sequence to pages. */
export async function restoreRows(
  memory: CacheMemory,
  { header, payload }: SavedSequence,
  pages: ArrayLike<number>,
): Promise<void> {
  for (const layer of memory.layers.keys()) {
    for (const part of memory.parts) {
      const rows = payload.subarray(...savedPart(header, layer, part));
      await memory.write(layer, part, pages, rows);
    }
  }
}

/** Checks that a saved sequence is of a cache like this. Throws `DTypeError` or `OptionError`. */
export function checkSaved(saved: SavedHeader, options: CheckedCacheOptions): void {
  const own = headerOf(options, 0);
  for (const [name, part] of [["kDtype", "keys"], ["vDtype", "values"]] as const) {
    if (saved[name] === own[name]) continue;
    throw new DTypeError("saved sequence", {
      got: `${part} in ${saved[name]}`,
      expected: `${own[name]}, the cache's`,
      hint: "Restore it into a cache of its dtypes.",
    });
  }
  for (const name of ["numLayers", "numKvHeads", "headDimK", "headDimV", "tokenScales"] as const) {
    if (saved[name] === own[name]) continue;
    throw new OptionError("saved sequence", {
      got: `${name} ${saved[name]}`,
      expected: `${own[name]}, the cache's`,
      hint: "Restore it into a cache of the same model.",
    });
  }
}
