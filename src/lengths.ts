/**
 * How long the requests of a batch are: lengths, and where each begins. Pure.
 *
 * @module
 */

import { OptionError } from "./errors.ts";
import { checkArray, entriesOf } from "./option_checks.ts";
import { show } from "./shape.ts";

/** What the lengths of a padded batch count. */
export interface LengthsOf {
  /** The option. */
  readonly name: "seqLens" | "qoLens";
  /** What a length counts. */
  readonly counted: string;
  /** What a length may be at most, in words. */
  readonly most: string;
}

/** Keys in use. */
export const SEQ_LENS: LengthsOf = {
  name: "seqLens",
  counted: "the keys in use, from the beginning of the request's cache",
  most: "the cache's length",
};

/** Queries in use. */
export const QO_LENS: LengthsOf = {
  name: "qoLens",
  counted: "the queries in use, from the beginning of the request's rows of q",
  most: "q's rows of a request",
};

/** Checks the lengths of a padded batch; left out, every request has `most`. */
export function checkLengths(
  of: LengthsOf,
  lengths: ArrayLike<number> | undefined,
  batch: number,
  most: number,
): readonly number[] {
  if (lengths === undefined) return new Array(batch).fill(most);
  const subject = `options.${of.name}`;
  const list = checkArray(subject, lengths, "Give one length a request, such as [17, 1024].");
  if (list.length !== batch) {
    throw new OptionError(subject, {
      got: `${list.length} lengths`,
      expected: `${batch}, one a request`,
      hint: `Leave ${of.name} out when every request has ${most}.`,
    });
  }
  return entriesOf(list).map((value, request) => {
    if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most) {
      return value as number;
    }
    throw new OptionError(subject, {
      got: `${show(value)} for request ${request}`,
      expected: `an integer from 0 to ${most}, ${of.most}`,
      hint: `A length counts ${of.counted}.`,
    });
  });
}

/** The largest entry of an index array: FlashInfer's are int32. */
const MOST = 2 ** 31 - 1;

/** Checks where requests begin in rows that lie one after another: 0, then no less than before. */
export function checkIndptr(subject: string, value: unknown): readonly number[] {
  const hint = "Entry i is where request i begins, the last one where the last request ends, " +
    "such as [0, 17, 40] for requests of 17 and 23.";
  const list = checkArray(subject, value, hint);
  if (list.length === 0) {
    throw new OptionError(subject, { got: "no entries", expected: "at least the entry 0", hint });
  }
  // Copied as far as it is right: a list may be longer than any copy.
  const indptr: number[] = [];
  const { length } = list;
  for (let i = 0; i < length; i++) {
    const entry = list[i];
    const least = i === 0 ? 0 : indptr[i - 1];
    const most = i === 0 ? 0 : MOST;
    const fits = Number.isInteger(entry) && (entry as number) >= least && (entry as number) <= most;
    if (fits) {
      indptr.push(entry as number);
      continue;
    }
    const place = i === 0 ? "the beginning of request 0" : `the end of request ${i - 1}`;
    throw new OptionError(`${subject}[${i}]`, {
      got: `${show(entry)} for ${place}`,
      expected: i === 0 ? "0" : `an integer from ${least}, where it begins, to ${most}`,
      hint,
    });
  }
  return indptr;
}

/** The lengths between the entries of an index array. */
export function lengthsOf(indptr: readonly number[]): number[] {
  return Array.from({ length: indptr.length - 1 }, (_, i) => indptr[i + 1] - indptr[i]);
}
