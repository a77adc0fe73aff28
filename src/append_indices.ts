/**
 * Index arrays of paged caches, computed on the host: where tokens are to be appended, and how long
 * requests are.
 *
 * @module
 */

import { OptionError } from "./errors.ts";
import { checkIndptr, lengthsOf } from "./lengths.ts";
import { checkInteger, checkList } from "./option_checks.ts";
import { checkLastPageLens, isIntegerBelow, pagedLengths } from "./page_indices.ts";
import { show } from "./shape.ts";

/** What {@linkcode getBatchIndicesPositions} gives: two entries a token. */
export interface BatchIndicesPositions {
  /** The request of each token. */
  batchIndices: Int32Array<ArrayBuffer>;
  /** Its position in that request. */
  positions: Int32Array<ArrayBuffer>;
}

/** The largest length: index arrays are int32. */
const MOST = 2 ** 31 - 1;

/**
 * The request and the position of each token that is appended (FlashInfer's
 * `get_batch_indices_positions`): the tokens of a request are its last ones.
 *
 * @param appendIndptr Where each request's tokens begin among those to be appended, and where the
 *   last one's end: B + 1 integers, from 0, never falling.
 * @param seqLens The length of each request once they are appended.
 * @param nnz The number of tokens, which is the last entry of `appendIndptr`; only checked.
 * @returns The arrays that {@linkcode appendPagedKvCache} takes.
 * @throws {OptionError} when the arguments do not fit; it names the request.
 *
 * @example
 * ```ts
 * import { getBatchIndicesPositions } from "@kvasir/attention";
 *
 * // Two tokens for request 0, which has 5 then, and one for request 1, its first.
 * const { batchIndices, positions } = getBatchIndicesPositions([0, 2, 3], [5, 1]);
 * console.log(batchIndices, positions); // [0, 0, 1] [3, 4, 0]
 * ```
 */
export function getBatchIndicesPositions(
  appendIndptr: ArrayLike<number>,
  seqLens: ArrayLike<number>,
  nnz?: number,
): BatchIndicesPositions {
  const indptr = checkIndptr("appendIndptr", appendIndptr);
  const counts = lengthsOf(indptr);
  const lengths = checkSeqLens(seqLens, counts);
  const count = indptr[counts.length];
  if (nnz !== undefined && nnz !== count) {
    throw new OptionError("nnz", {
      got: show(nnz),
      expected: `${count}, where appendIndptr ends`,
      hint: "Leave it out: it is known from appendIndptr.",
    });
  }
  const batchIndices = new Int32Array(count);
  const positions = new Int32Array(count);
  counts.forEach((appended, request) => {
    const first = lengths[request] - appended;
    for (let i = 0; i < appended; i++) {
      batchIndices[indptr[request] + i] = request;
      positions[indptr[request] + i] = first + i;
    }
  });
  return { batchIndices, positions };
}

/**
 * The length of each request of a paged cache (FlashInfer's `get_seq_lens`):
 * `pageSize · (pages - 1) + lastPageLen`.
 *
 * @param kvIndptr Where each request's pages begin in its list of pages, and where the last one's end.
 * @param kvLastPageLen The tokens in the last page of each request: 1 to `pageSize`.
 * @param pageSize The tokens that a page has room for.
 * @returns One length a request; 0 for a request without pages, whatever its `kvLastPageLen`.
 * @throws {OptionError} when the arguments do not fit; it names the request.
 *
 * @example
 * ```ts
 * import { getSeqLens } from "@kvasir/attention";
 *
 * console.log(getSeqLens([0, 3, 4], [2, 16], 16)); // Int32Array [ 34, 16 ]
 * ```
 */
export function getSeqLens(
  kvIndptr: ArrayLike<number>,
  kvLastPageLen: ArrayLike<number>,
  pageSize: number,
): Int32Array<ArrayBuffer> {
  const indptr = checkIndptr("kvIndptr", kvIndptr);
  const size = checkInteger("pageSize", pageSize, 1);
  const lengths = pagedLengths(
    indptr,
    checkLastPageLens("kvLastPageLen", kvLastPageLen, indptr, size),
    size,
  );
  const tooLong = lengths.findIndex((length) => length > MOST);
  if (tooLong < 0) return Int32Array.from(lengths);
  throw new OptionError(`kvIndptr[${tooLong + 1}]`, {
    got: `${lengths[tooLong]} tokens for request ${tooLong}`,
    expected: `at most ${MOST}`,
    hint: "Lengths are int32; look at pageSize and kvIndptr.",
  });
}

/** Checks that each request is at least as long as what is appended to it. */
function checkSeqLens(value: unknown, counts: readonly number[]): readonly number[] {
  const hint = "A length counts the tokens of the request, those to be appended included.";
  const lengths = checkList("seqLens", value, hint);
  if (lengths.length !== counts.length) {
    throw new OptionError("seqLens", {
      got: `${lengths.length} lengths`,
      expected: `${counts.length}, one a request`,
      hint,
    });
  }
  lengths.forEach((length, request) => {
    if (isIntegerBelow(length, MOST + 1) && length >= counts[request]) return;
    throw new OptionError(`seqLens[${request}]`, {
      got: `${show(length)} for request ${request}`,
      expected: `an integer of at least ${counts[request]}, what is appended to it`,
      hint,
    });
  });
  return lengths as readonly number[];
}
