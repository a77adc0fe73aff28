/**
 * What a binding must hold of the scales of tokens: all of them, for caches that are bound whole or in
 * parts. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS, type ScaleStrides } from "../attention_problem.ts";
import { LimitError } from "../errors.ts";
import type { DispatchLimits } from "./capabilities.ts";

/** One more than the largest page of a problem, and 1 at least. */
export function pagesOf(
  { requests, pageTable }: Pick<AttentionProblem, "requests" | "pageTable">,
): number {
  let pages = 1;
  if (pageTable !== null) {
    for (let i = 0; i < pageTable.length; i++) {
      if (pageTable[i] >= pages) pages = pageTable[i] + 1;
    }
    return pages;
  }
  for (let at = 3; at < requests.length; at += REQUEST_WORDS) {
    if (requests[at] >= pages) pages = requests[at] + 1;
  }
  return pages;
}

/** Checks that the scales of so many pages fit a binding. Throws `LimitError`. */
export function checkScales(
  { kvScales }: { readonly kvScales: ScaleStrides | null },
  numPages: number,
  { maxStorageBufferBindingSize: most }: DispatchLimits,
): void {
  const bytes = 8 * numPages * (kvScales?.page ?? 0);
  if (bytes <= most) return;
  throw new LimitError("kvScales", {
    got: `${bytes} bytes`,
    expected: `at most ${most}, one binding of this device`,
    hint: "Split the batch or the pages over several caches, or use scales of heads.",
  });
}
