/**
 * The differential gate: an answer passes if every element lies within twice the error of the
 * plain float32 computation, plus 1e-6, of the float64 oracle, and is then rounded to its dtype.
 *
 * The plain computation is now and then exact by luck, and its `exp` is rounded correctly, which
 * that of SIMD code or of a GPU is not. So its error counts by requests, not by elements: the
 * largest of a request's, and at least what one unit in the last place of its largest number makes,
 * be that number in the answer, a logit or a sum on the way to one. (Without the logits, answers of
 * either backend were up to 6 times as far off as a plain computation that had luck.)
 *
 * @module
 */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import { roundTo } from "./formats.ts";
import {
  type AttentionCase,
  type AttentionResult,
  oracle,
  plainFloat32,
  unitInTheLastPlace,
} from "./oracle.ts";

/** What is allowed beside twice the plain computation's error. */
const ABSOLUTE = 1e-6;

/** The oracle's answer, and how far from it an answer may be. */
export interface Expected {
  readonly exact: AttentionResult;
  /** The bounds of each request's out and lse, before they are rounded to their dtypes. */
  readonly outBounds: Float64Array;
  readonly lseBounds: Float64Array;
}

/** An answer of the library. */
export interface Answer {
  readonly out: ArrayLike<number>;
  readonly lse?: ArrayLike<number>;
}

/** Computes what {@linkcode checkAnswer} compares with. */
export function expectedOf(problem: AttentionCase): Expected {
  const exact = oracle(problem);
  const plain = plainFloat32(problem);
  const bounds = (name: "out" | "lse") =>
    largestErrors(exact, plain, name, problem.numRequests).map((x) => 2 * x + ABSOLUTE);
  return { exact, outBounds: bounds("out"), lseBounds: bounds("lse") };
}

/** The largest error of each request, but at least a unit of float32. */
function largestErrors(
  exact: AttentionResult,
  plain: AttentionResult,
  name: "out" | "lse",
  requests: number,
): Float64Array {
  const errors = new Float64Array(requests);
  const count = exact[name].length;
  const units = exact[`${name}Units`];
  exact[name].forEach((value, i) => {
    // Where both are the same infinity, or NaN, there is nothing to measure.
    const other = plain[name][i];
    if (!Number.isFinite(value) && Object.is(value, other)) return;
    const error = Math.abs(value - other);
    // An overflow in float32 alone would make the bound infinite, and the test empty.
    assert.ok(Number.isFinite(error), `plain float32 gives ${other} where float64 gives ${value}`);
    const request = Math.floor(i * requests / count);
    const unit = units[Math.floor(i * units.length / count)];
    errors[request] = Math.max(errors[request], error, unitInTheLastPlace(value), unit);
  });
  return errors;
}

/** Whether `got` is some number within `bound` of `exact`, rounded to `dtype`. */
export function isWithin(got: number, exact: number, bound: number, dtype: DType): boolean {
  if (Number.isNaN(exact)) return Number.isNaN(got);
  return roundTo(exact - bound, dtype) <= got && got <= roundTo(exact + bound, dtype);
}

/** An element that is not what it should be. */
export interface Miss {
  readonly index: number;
  readonly got: number;
  readonly exact: number;
  readonly bound: number;
}

/** The element furthest beyond its bound, or null where all are within. */
export function worstMiss(
  got: ArrayLike<number>,
  exact: ArrayLike<number>,
  boundOf: (i: number) => number,
  dtype: DType,
): Miss | null {
  let worst: Miss | null = null;
  let worstExcess = -1;
  for (let i = 0; i < exact.length; i++) {
    const bound = boundOf(i);
    if (isWithin(got[i], exact[i], bound, dtype)) continue;
    const off = Math.abs(got[i] - exact[i]);
    const excess = Number.isNaN(off) ? Infinity : off / bound;
    if (excess > worstExcess) {
      worst = { index: i, got: got[i], exact: exact[i], bound };
      worstExcess = excess;
    }
  }
  return worst;
}

/** Fails unless every element of `answer` passes the gate. */
export function checkAnswer(
  label: string,
  answer: Answer,
  expected: Expected,
  problem: AttentionCase,
  outDtype: DType,
): void {
  const { exact } = expected;
  assert.equal(answer.out.length, exact.out.length, `${label}: elements of out`);
  const outMiss = worstMiss(answer.out, exact.out, outBoundOf(expected), outDtype);
  report(label, "out", outMiss, problem, problem.headDimV ?? problem.headDim);
  if (!answer.lse) return;
  assert.equal(answer.lse.length, exact.lse.length, `${label}: elements of lse`);
  const lseMiss = worstMiss(answer.lse, exact.lse, lseBoundOf(expected), "float32");
  report(label, "lse", lseMiss, problem, 1);
}

/** The bound of each element of out. */
export function outBoundOf({ exact, outBounds }: Expected): (i: number) => number {
  return (i) => outBounds[Math.floor(i * outBounds.length / exact.out.length)];
}

/** The bound of each element of lse. */
export function lseBoundOf({ exact, lseBounds }: Expected): (i: number) => number {
  return (i) => lseBounds[Math.floor(i * lseBounds.length / exact.lse.length)];
}

/** Computes what is expected, and checks. */
export function checkAttention(
  label: string,
  answer: Answer,
  problem: AttentionCase,
  outDtype: DType,
): void {
  checkAnswer(label, answer, expectedOf(problem), problem, outDtype);
}

function report(label: string, name: string, miss: Miss | null, c: AttentionCase, size: number) {
  if (!miss) return;
  const row = Math.floor(miss.index / size);
  const numQueries = c.numQueries ?? 1;
  const place = [
    `request ${Math.floor(row / (c.numQoHeads * numQueries))}`,
    `query ${Math.floor(row / c.numQoHeads) % numQueries}`,
    `head ${row % c.numQoHeads}`,
    ...(size > 1 ? [`element ${miss.index % size}`] : []),
  ].join(", ");
  const off = Math.abs(miss.got - miss.exact);
  assert.fail(
    `${label}: ${name} at ${place}: got ${miss.got}, expected ${miss.exact}, ` +
      `off by ${off}, allowed ${miss.bound} before rounding`,
  );
}
