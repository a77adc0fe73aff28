/**
 * What a page table takes and gives.
 *
 * @module
 */

import type { PageSequence } from "./page_sequence.ts";

/** The size of a page table. */
export interface PageTableOptions {
  /** Pages in all. */
  numPages: number;
  /** Tokens of a page. */
  pageSize: number;
}

/** Tokens to be added to a sequence. */
export interface Append {
  /** The sequence that grows. */
  sequence: PageSequence;
  /** By how many tokens. */
  tokens: number;
}

/** The first `tokens` rows of page `from` go to the first rows of page `to`. */
export interface PageCopy {
  readonly from: number;
  readonly to: number;
  readonly tokens: number;
}

/** Where the rows of new tokens go, and what must happen before they are written. */
export interface Reservation {
  /** To be done on the device before any row is written, in any order. */
  readonly copies: readonly PageCopy[];
  /** The page of each new token, in the order of the appends. */
  readonly pages: Int32Array<ArrayBuffer>;
  /** Its place in that page. */
  readonly places: Int32Array<ArrayBuffer>;
}

/** The pages of a batch of sequences, as FlashInfer's calls take them. */
export interface BatchTables {
  /** Entry i is where the pages of sequence i begin in `indices`; one entry more than sequences. */
  readonly indptr: Int32Array<ArrayBuffer>;
  /** Page numbers, each sequence's in the order of its tokens. */
  readonly indices: Int32Array<ArrayBuffer>;
  /** The tokens of each last page: 1 to pageSize; 0 for an empty sequence, which has no page. */
  readonly lastPageLen: Int32Array<ArrayBuffer>;
}

/** What a table holds. */
export interface PageStatistics {
  /** Pages in all. */
  readonly numPages: number;
  /** Pages that sequences hold. */
  readonly usedPages: number;
  /** Pages that nobody holds. */
  readonly freePages: number;
  /** Used pages that more than one sequence holds. */
  readonly sharedPages: number;
  /** Sequences that are not freed. */
  readonly numSequences: number;
  /** The sum of the sequences' lengths. */
  readonly sequenceTokens: number;
  /** Tokens in pages: a token that sequences share counts once. */
  readonly storedTokens: number;
}
