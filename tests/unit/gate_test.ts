/** The differential gate: what it lets pass, and what it stops. */

import assert from "node:assert/strict";
import { checkAnswer, expectedOf, isWithin, worstMiss } from "../support/gate.ts";
import { type AttentionCase, plainFloat32 } from "../support/oracle.ts";
import { normals } from "../support/values.ts";

const CASE: AttentionCase = {
  numRequests: 2,
  numQoHeads: 4,
  numKvHeads: 2,
  headDim: 8,
  maxKvLen: 50,
  kvLayout: "NHD",
  q: normals(64, 1),
  k: normals(1600, 2),
  v: normals(1600, 3),
};
const EXPECTED = expectedOf(CASE);

function goodAnswer() {
  return {
    out: Float32Array.from(EXPECTED.exact.out),
    lse: Float32Array.from(EXPECTED.exact.lse),
  };
}

Deno.test("gate: the oracle's own answer passes, rounded to float32", () => {
  checkAnswer("exact", goodAnswer(), EXPECTED, CASE, "float32");
});

Deno.test("gate: the plain float32 computation passes", () => {
  checkAnswer("plain", plainFloat32(CASE), EXPECTED, CASE, "float32");
});

Deno.test("gate: one wrong element of out fails, with its place", () => {
  const answer = goodAnswer();
  answer.out[(1 * 4 + 2) * 8 + 5] += 1e-5;
  assert.throws(
    () => checkAnswer("case", answer, EXPECTED, CASE, "float32"),
    /case: out at request 1, query 0, head 2, element 5: got .*, expected .*/,
  );
});

Deno.test("gate: one wrong element of lse fails, with its place", () => {
  const answer = goodAnswer();
  answer.lse[3] -= 1e-5;
  assert.throws(
    () => checkAnswer("case", answer, EXPECTED, CASE, "float32"),
    /case: lse at request 0, query 0, head 3: got/,
  );
});

Deno.test("gate: NaN, zeros and missing elements fail", () => {
  const wrong = [
    Float32Array.from(EXPECTED.exact.out, (x, i) => i === 9 ? NaN : x),
    new Float32Array(64),
    Float32Array.from(EXPECTED.exact.out).subarray(1),
  ];
  for (const out of wrong) {
    assert.throws(() => checkAnswer("case", { out }, EXPECTED, CASE, "float32"));
  }
});

Deno.test("gate: of several misses the worst is reported, NaN before all", () => {
  const exact = [1, 1, 1, 1];
  assert.equal(worstMiss([1, 1.1, 1.3, 1.2], exact, () => 1e-6, "float32")?.index, 2);
  assert.equal(worstMiss([1, 1.1, NaN, 1.2], exact, () => 1e-6, "float32")?.index, 2);
  assert.equal(worstMiss([1, 1, 1, 1], exact, () => 1e-6, "float32"), null);
});

Deno.test("isWithin() allows the rounding of the dtype, and no more", () => {
  const exact = 1 + 0.4 * 2 ** -10; // the nearest half is 1
  assert.ok(isWithin(1, exact, 1e-6, "float16"));
  assert.ok(!isWithin(1 + 2 ** -10, exact, 1e-6, "float16"));
  assert.ok(isWithin(1 + 2 ** -10, 1 + 0.5 * 2 ** -10, 1e-6, "float16"));
  assert.ok(!isWithin(1, exact, 1e-6, "float32"));
});

Deno.test("isWithin() knows infinity and NaN", () => {
  assert.ok(isWithin(-Infinity, -Infinity, 1e-6, "float32"));
  assert.ok(!isWithin(-3e38, -Infinity, 1e-6, "float32"));
  assert.ok(!isWithin(NaN, -Infinity, 1e-6, "float32"));
  assert.ok(isWithin(NaN, NaN, 1e-6, "float32"));
  assert.ok(!isWithin(0, NaN, 1e-6, "float32"));
  assert.ok(isWithin(Infinity, 65520, 1e-6, "float16"));
  assert.ok(!isWithin(65504, 65530, 1e-6, "float16"));
});
