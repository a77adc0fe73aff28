/**
 * Page tables as callers give them: which pages of a cache are each request's, and how full the last
 * one is. Checks, each in a function of its own. Pure.
 *
 * @module
 */

import { OptionError } from "./errors.ts";
import { checkIndptr } from "./lengths.ts";
import { checkArray } from "./option_checks.ts";
import { show } from "./shape.ts";

/** The index arrays of a paged batch, unchecked. */
export interface PageArrays {
  /** Where each request's pages begin in `indices`, and where the last one's end. */
  readonly indptr: ArrayLike<number>;
  /** Page numbers. */
  readonly indices: ArrayLike<number>;
  /** Tokens in the last page of each request. */
  readonly lastPageLen: ArrayLike<number>;
}

/** What a call's errors name its arrays. */
export type PageArrayNames = Readonly<Record<keyof PageArrays, string>>;

/** The sizes of a paged cache that its tables depend on. */
export interface PageSizes {
  readonly numPages: number;
  readonly pageSize: number;
}

/** A page table that is known to be right. */
export interface PageTable {
  readonly indptr: readonly number[];
  readonly indices: Uint32Array<ArrayBuffer>;
  /** Tokens of each request: pageSize · (pages - 1) + lastPageLen; 0 for one without pages. */
  readonly lengths: readonly number[];
}

/** The largest length of a request: FlashInfer's are int32. */
const MOST_TOKENS = 2 ** 31 - 1;

/** Checks all three arrays against each other and the cache. Throws `OptionError`. */
export function checkPageTable(
  names: PageArrayNames,
  arrays: PageArrays,
  { numPages, pageSize }: PageSizes,
): PageTable {
  const indptr = checkIndptr(names.indptr, arrays.indptr);
  const indices = checkPageIndices(names, arrays.indices, indptr, numPages);
  const lastPageLens = checkLastPageLens(names.lastPageLen, arrays.lastPageLen, indptr, pageSize);
  const lengths = pagedLengths(indptr, lastPageLens, pageSize);
  checkTokens(lengths, (request) => `${names.indptr}[${request + 1}]`);
  return { indptr, indices, lengths };
}

/** Refuses requests whose tokens kernels, which count in 32 bits, cannot count. */
export function checkTokens(
  lengths: readonly number[],
  subjectOf: (request: number) => string,
): void {
  const request = lengths.findIndex((length) => length > MOST_TOKENS);
  if (request < 0) return;
  throw new OptionError(subjectOf(request), {
    got: `${lengths[request]} tokens for request ${request}`,
    expected: `at most ${MOST_TOKENS}`,
    hint: "Lengths are int32; look at the page size and at the number of the request's pages.",
  });
}

/** Checks page numbers: as many as `indptr` counts, and each within the cache. */
export function checkPageIndices(
  names: Pick<PageArrayNames, "indices" | "indptr">,
  value: unknown,
  indptr: readonly number[],
  numPages: number,
): Uint32Array<ArrayBuffer> {
  const hint = `Request i has the pages ${names.indices}[${names.indptr}[i]] to ` +
    `${names.indices}[${names.indptr}[i + 1] - 1], in the order of their tokens.`;
  const list = checkArray(names.indices, value, hint);
  const count = indptr[indptr.length - 1];
  if (list.length !== count) {
    throw new OptionError(names.indices, {
      got: `${list.length} pages`,
      expected: `${count}, where ${names.indptr} ends`,
      hint,
    });
  }
  // A cache has tens of thousands of pages: each is looked at once.
  const indices = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    const page = list[i];
    if (typeof page === "number" && page >= 0 && page < numPages && page % 1 === 0) {
      indices[i] = page;
      continue;
    }
    throw new OptionError(`${names.indices}[${i}]`, {
      got: `page ${show(page)} for request ${requestOf(indptr, i)}`,
      expected: numPages === 0
        ? "no page, since the cache has none"
        : `an integer from 0 to ${numPages - 1}, the cache's last page`,
      hint,
    });
  }
  return indices;
}

/** Checks how many tokens the last page of each request holds; of one without pages, nothing is asked. */
export function checkLastPageLens(
  subject: string,
  value: unknown,
  indptr: readonly number[],
  pageSize: number,
): readonly number[] {
  const hint = "It counts the tokens in the request's last page, those to be appended included; " +
    "a request without pages has 0.";
  const given = checkArray(subject, value, hint);
  const numRequests = indptr.length - 1;
  if (given.length !== numRequests) {
    throw new OptionError(subject, {
      got: `${given.length} numbers`,
      expected: `${numRequests}, one a request`,
      hint,
    });
  }
  const lens: number[] = [];
  for (let request = 0; request < numRequests; request++) {
    const len = given[request];
    const least = indptr[request + 1] > indptr[request] ? 1 : 0;
    if (isIntegerBelow(len, pageSize + 1) && len >= least) {
      lens.push(len);
      continue;
    }
    throw new OptionError(`${subject}[${request}]`, {
      got: `${show(len)} for request ${request}`,
      expected: `an integer from ${least} to ${pageSize}, the page size`,
      hint,
    });
  }
  return lens;
}

/** The tokens of each request. */
export function pagedLengths(
  indptr: readonly number[],
  lastPageLens: readonly number[],
  pageSize: number,
): number[] {
  const lengths: number[] = [];
  for (let request = 0; request < lastPageLens.length; request++) {
    const pages = indptr[request + 1] - indptr[request];
    lengths.push(pages === 0 ? 0 : (pages - 1) * pageSize + lastPageLens[request]);
  }
  return lengths;
}

/** Whether a value is an integer of at least 0 and below `end`. */
export function isIntegerBelow(value: unknown, end: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < end;
}

/** The request to which entry `at` belongs. */
function requestOf(indptr: readonly number[], at: number): number {
  return indptr.findIndex((_, request) => indptr[request + 1] > at);
}
