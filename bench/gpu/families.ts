/**
 * Every kernel family that is timed on the GPU. A new one gets a file beside decode.ts, which makes
 * {@linkcode GpuCase}s, and an entry here.
 *
 * @module
 */

import { APPEND_CASES, appendCase, SMALL_APPEND_CASES } from "./append.ts";
import { CASCADE_CASES, cascadeCase, SMALL_CASCADE_CASES } from "./cascade.ts";
import { decodeCase } from "./decode.ts";
import { DECODE_PROBLEMS, SMALL_DECODE_PROBLEMS } from "./decode_cases.ts";
import type { GpuCase } from "./family.ts";
import { MERGE_CASES, mergeCase, SMALL_MERGE_CASES } from "./merge.ts";
import { prefillCase } from "./prefill.ts";
import { PREFILL_PROBLEMS, SMALL_PREFILL_PROBLEMS } from "./prefill_cases.ts";
import { QUANTIZE_CASES, quantizeCase, SMALL_QUANTIZE_CASES } from "./quantize.ts";

/** All cases, in the order in which they run; small ones for a software adapter. */
export function casesFor(isSmall: boolean): GpuCase[] {
  return [
    ...(isSmall ? SMALL_DECODE_PROBLEMS : DECODE_PROBLEMS).map(decodeCase),
    ...(isSmall ? SMALL_PREFILL_PROBLEMS : PREFILL_PROBLEMS).map(prefillCase),
    ...(isSmall ? SMALL_MERGE_CASES : MERGE_CASES).map(mergeCase),
    ...(isSmall ? SMALL_CASCADE_CASES : CASCADE_CASES).map(cascadeCase),
    ...(isSmall ? SMALL_APPEND_CASES : APPEND_CASES).map(appendCase),
    ...(isSmall ? SMALL_QUANTIZE_CASES : QUANTIZE_CASES).map(quantizeCase),
  ];
}
