/**
 * How near FlashInfer's own answers an answer must be.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { DecodeAnswer, DecodeInputs } from "./decode.ts";
import {
  checkAnswer,
  type Expected,
  expectedOf,
  lseBoundOf,
  outBoundOf,
  worstMiss,
} from "./gate.ts";
import { type GoldenCase, goldenCase } from "./golden.ts";

/** What a case is run with. */
type GoldenInputs = Pick<DecodeInputs, "problem">;

/** How far FlashInfer is from float64 at most: what the README of the cases says, a digit finer. */
function flashInferBounds(c: GoldenCase): { out: number; lse: number } {
  if (c.dtype === "bfloat16") return { out: 4.0e-3, lse: 1.4e-3 };
  const scaled = c.kScale !== undefined || c.vScale !== undefined;
  const rope = c.posEncodingMode === "ROPE_LLAMA";
  const decodes = c.id.startsWith("paged_decode/");
  return {
    out: scaled ? 8.2e-4 : 6.6e-4, // scales after rounding
    lse: decodes ? (rope ? 3.3e-6 : 1.3e-6) : (rope ? 4.2e-4 : 2.6e-4),
  };
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}

/** FlashInfer counts ALiBi's query from another position, which moves lse and nothing else. */
function hasComparableLse({ posEncodingMode }: GoldenCase): boolean {
  return posEncodingMode !== "ALIBI";
}

/** A case, and what is expected of it. */
export interface Prepared<Inputs extends GoldenInputs = GoldenInputs> {
  readonly golden: GoldenCase;
  readonly inputs: Inputs;
  readonly expected: Expected;
}

/** The rows of a result, of `size` elements, that FlashInfer's result has, in its order. */
function rowsInUse(x: ArrayLike<number>, { golden, inputs: { problem } }: Prepared, size: number) {
  const { numQueries = 1, qoLens } = problem;
  const all = Float64Array.from(x);
  if (!qoLens) return all;
  const rows = golden.qoLens.flatMap((length, request) =>
    Array.from({ length }, (_, i) => request * numQueries + i)
  );
  return Float64Array.from(rows.flatMap((row) => [...all.subarray(row * size, (row + 1) * size)]));
}

/**
 * Prepares cases, and keeps the last, which the next backend needs again; the largest takes a
 * gigabyte.
 */
export function prepareWith<Inputs extends GoldenInputs>(
  makeInputs: (golden: GoldenCase) => Inputs,
): (id: string) => Prepared<Inputs> {
  let prepared: Prepared<Inputs> | undefined;
  return (id) => {
    if (prepared?.golden.id === id) return prepared;
    const golden = goldenCase(id);
    const inputs = makeInputs(golden);
    prepared = { golden, inputs, expected: expectedOf(inputs.problem) };
    // The inputs are FlashInfer's only if the oracle says of them what FlashInfer answered.
    const { exact } = prepared.expected;
    const bounds = flashInferBounds(golden);
    const out = rowsInUse(exact.out, prepared, golden.numQoHeads * golden.headDim);
    assert.ok(largestDifference(out, golden.out) <= bounds.out, `${id}: the oracle's out`);
    if (hasComparableLse(golden)) {
      const lse = rowsInUse(exact.lse, prepared, golden.numQoHeads);
      assert.ok(largestDifference(lse, golden.lse) <= bounds.lse, `${id}: the oracle's lse`);
    }
    return prepared;
  };
}

/** An answer may be as far from FlashInfer's as both together may be from float64. */
export function checkGolden(answer: DecodeAnswer, prepared: Prepared): void {
  const { golden, inputs, expected } = prepared;
  const { id, dtype, numQoHeads } = golden;
  checkAnswer(id, answer, expected, inputs.problem, dtype);
  const theirs = flashInferBounds(golden);
  const compare = (name: "out" | "lse", boundOf: (i: number) => number, rowSize: number) => {
    const bounds = rowsInUse(
      Float64Array.from(answer[name], (_, i) => boundOf(i)),
      prepared,
      rowSize,
    );
    const miss = worstMiss(
      rowsInUse(answer[name], prepared, rowSize),
      golden[name],
      (i) => theirs[name] + bounds[i],
      name === "out" ? dtype : "float32",
    );
    assert.equal(miss, null, `${id}: ${name}`);
  };
  compare("out", outBoundOf(expected), numQoHeads * golden.headDim);
  if (hasComparableLse(golden)) compare("lse", lseBoundOf(expected), numQoHeads);
}
