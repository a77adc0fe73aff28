/**
 * Counting what a page table holds. Pure.
 *
 * @module
 */

import type { PagePool } from "./page_pool.ts";
import { lastPage, type SequenceState } from "./page_sequence.ts";
import type { PageStatistics } from "./page_types.ts";

/** The statistics of a table whose sequences are `states`. */
export function statisticsOf(
  states: ReadonlySet<SequenceState>,
  pool: PagePool,
  pageSize: number,
): PageStatistics {
  const { numPages, numFree, numShared } = pool;
  let sequenceTokens = 0;
  /** The pages that end a sequence before they are full: of how many, and the most tokens. */
  const partial = new Map<number, { holders: number; tokens: number }>();
  for (const state of states) {
    sequenceTokens += state.length;
    const tokens = state.length % pageSize;
    if (tokens === 0) continue;
    const { holders, tokens: most } = partial.get(lastPage(state)) ?? { holders: 0, tokens: 0 };
    partial.set(lastPage(state), { holders: holders + 1, tokens: Math.max(most, tokens) });
  }
  const usedPages = numPages - numFree;
  let storedTokens = usedPages * pageSize;
  for (const [page, { holders, tokens }] of partial) {
    // Where one more sequence holds the page, it is full in that one.
    if (holders === pool.references(page)) storedTokens -= pageSize - tokens;
  }
  return {
    numPages,
    usedPages,
    freePages: numFree,
    sharedPages: numShared,
    numSequences: states.size,
    sequenceTokens,
    storedTokens,
  };
}
