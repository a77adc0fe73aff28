/**
 * The one description of attention that both backends compute, and the address rule behind it.
 *
 * Every cache is a paged cache: element = page·pageStride + token·tokenStride + head·headStride.
 * NHD and HND differ in strides only; a padded cache has one long page a request; a ragged one has
 * pages that begin at any token. A query row is found by its token and head in the same way.
 *
 * @module
 */

import type { DType } from "./dtype.ts";

/** Where the elements of q or out lie, in elements. */
export interface RowStrides {
  readonly token: number;
  readonly head: number;
}

/** Where the elements of k or v lie, in elements. */
export interface CacheStrides extends RowStrides {
  readonly page: number;
}

/** Words of one request in {@linkcode AttentionProblem.requests}. */
export const REQUEST_WORDS = 4;

/** What is to be computed: pure numbers, no memory, no device. */
export interface AttentionProblem {
  readonly numRequests: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly qDtype: DType;
  readonly kvDtype: DType;
  readonly outDtype: DType;
  readonly qStrides: RowStrides;
  readonly outStrides: RowStrides;
  readonly kStrides: CacheStrides;
  readonly vStrides: CacheStrides;
  /** Tokens of a page. */
  readonly pageSize: number;
  /**
   * Four words a request: its first query row, its number of query rows, its number of keys, and
   * its first entry in `pageTable`.
   */
  readonly requests: Uint32Array<ArrayBuffer>;
  /** Page numbers; null where entry i is page i (padded caches). */
  readonly pageTable: Uint32Array<ArrayBuffer> | null;
  /** Whether a query sees only keys up to its own position, counted from the end (bottom right). */
  readonly causal: boolean;
  /** Multiplies q·k: the softmax scale with the scales of q and k folded in. */
  readonly logitScale: number;
  /** Multiplies the output: the scale of v. */
  readonly outScale: number;
}
