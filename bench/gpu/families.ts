/**
 * Every kernel family that is timed on the GPU. Prefill, append and quantise get a file beside
 * decode.ts, which makes {@linkcode GpuCase}s, and an entry here; what the peers take for prefill is in
 * prefill_shapes.ts already.
 *
 * @module
 */

import { decodeCase } from "./decode.ts";
import { DECODE_PROBLEMS, SMALL_DECODE_PROBLEMS } from "./decode_cases.ts";
import type { GpuCase } from "./family.ts";
import { MERGE_CASES, mergeCase, SMALL_MERGE_CASES } from "./merge.ts";

/** All cases, in the order in which they run; small ones for a software adapter. */
export function casesFor(isSmall: boolean): GpuCase[] {
  return [
    ...(isSmall ? SMALL_DECODE_PROBLEMS : DECODE_PROBLEMS).map(decodeCase),
    ...(isSmall ? SMALL_MERGE_CASES : MERGE_CASES).map(mergeCase),
  ];
}
