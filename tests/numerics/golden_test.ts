/** The decode calls against what FlashInfer itself answered on an H200. */

import assert from "node:assert/strict";
import {
  type DecodeAnswer,
  type DecodeInputs,
  runDecode,
  runSingleDecode,
} from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import {
  checkAnswer,
  type Expected,
  expectedOf,
  lseBoundOf,
  outBoundOf,
  worstMiss,
} from "../support/gate.ts";
import { GOLDEN_IDS, type GoldenCase, goldenCase, goldenInputs } from "../support/golden.ts";

/** Run here: decodes as they are, prefills row by row. */
const COVERED = [
  "single_prefill/group3",
  "single_prefill/group5-full",
  "single_prefill/group1-one-key",
  "single_prefill/group16-decode-like",
  "single_prefill/scale",
  "single_prefill/d64",
  "single_prefill/rope",
  "single_prefill/alibi",
  "single_prefill/bf16",
  "paged_decode/group1",
  "paged_decode/group2",
  "paged_decode/group3",
  "paged_decode/group4",
  "paged_decode/page5",
  "paged_decode/page8-HND",
  "paged_decode/seed-example-e4m3",
  "paged_decode/e4m3-scales",
  "paged_decode/e5m2-group3",
  "paged_decode/d64",
  "paged_decode/rope",
  "paged_decode/alibi",
  "paged_decode/window",
  "batch_prefill/ragged-group5-full",
  "batch_prefill/paged-page1-HND",
];

/** What the others wait for. */
const WAITING: Readonly<Record<string, readonly string[]>> = {
  "merging states, in merge_golden_test.ts": ["batch_prefill/merge-state"],
  "custom masks": ["single_prefill/mask", "batch_prefill/paged-mask"],
  "rotating apart from attention": ["ops/rope"],
  "appending": ["ops/append"],
};

Deno.test("golden: every case is run, or known to wait", () => {
  const waiting = Object.values(WAITING).flat();
  assert.deepEqual([...COVERED, ...waiting].sort(), [...GOLDEN_IDS].sort());
  console.log(`golden: ${waiting.length} cases wait for ${Object.keys(WAITING).join(", ")}`);
});

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

interface Prepared {
  readonly golden: GoldenCase;
  readonly inputs: DecodeInputs;
  readonly expected: Expected;
}

/** The last case, which the next backend needs again; the largest takes a gigabyte. */
let prepared: Prepared | undefined;

function prepare(id: string): Prepared {
  if (prepared?.golden.id !== id) {
    const golden = goldenCase(id);
    const inputs = goldenInputs(golden);
    prepared = { golden, inputs, expected: expectedOf(inputs.problem) };
    // The inputs are FlashInfer's only if the oracle says of them what FlashInfer answered.
    const { exact } = prepared.expected;
    const bounds = flashInferBounds(golden);
    assert.ok(largestDifference(exact.out, golden.out) <= bounds.out, `${id}: the oracle's out`);
    if (hasComparableLse(golden)) {
      assert.ok(largestDifference(exact.lse, golden.lse) <= bounds.lse, `${id}: the oracle's lse`);
    }
  }
  return prepared;
}

/** An answer may be as far from FlashInfer's as both together may be from float64. */
function checkGolden(answer: DecodeAnswer, { golden, inputs, expected }: Prepared) {
  const { id, dtype } = golden;
  checkAnswer(id, answer, expected, inputs.problem, dtype);
  const theirs = flashInferBounds(golden);
  const [outBound, lseBound] = [outBoundOf(expected), lseBoundOf(expected)];
  const out = worstMiss(answer.out, golden.out, (i) => theirs.out + outBound(i), dtype);
  assert.equal(out, null, `${id}: out`);
  if (!hasComparableLse(golden)) return;
  const lse = worstMiss(answer.lse, golden.lse, (i) => theirs.lse + lseBound(i), "float32");
  assert.equal(lse, null, `${id}: lse`);
}

for (const id of COVERED) {
  onEachBackend(`golden: ${id}`, async (device) => {
    const case_ = prepare(id);
    checkGolden(await runDecode(device, case_.inputs), case_);
    if (case_.inputs.problem.numRequests === 1) {
      checkGolden(await runSingleDecode(device, case_.inputs), case_);
    }
  });
}
