/** mergeState() against what FlashInfer itself answered on an H200. */

import assert from "node:assert/strict";
import { mergeState } from "@kvasir/attention";
import { onEachBackend } from "../support/device.ts";
import { goldenCase } from "../support/golden.ts";
import { mergedStates, mergeMiss, readState } from "../support/merge.ts";
import { store } from "../support/storage.ts";
import { goldenValues } from "../support/values.ts";

const [ROWS, HEADS, DIM] = [11, 6, 128];

onEachBackend("golden: batch_prefill/merge-state", async (device) => {
  const golden = goldenCase("batch_prefill/merge-state");
  const [vA, vB] = [1, 2].map((seed) => store(goldenValues(ROWS * HEADS * DIM, seed), "float16"));
  const [sA, sB] = [3, 4].map((seed) => goldenValues(ROWS * HEADS, seed).map((x) => 8 * x));
  using a = device.tensorFromBytes(vA.bytes, [ROWS, HEADS, DIM], "float16");
  using b = device.tensorFromBytes(vB.bytes, [ROWS, HEADS, DIM], "float16");
  using sumA = device.tensor(sA, [ROWS, HEADS], "float32");
  using sumB = device.tensor(sB, [ROWS, HEADS], "float32");
  const answer = await readState(await mergeState(a, sumA, b, sumB));

  // Rows of two states each, as the oracle has them.
  const interleaved = <T extends ArrayLike<number>>(x: T, y: T, size: number) =>
    Float32Array.from({ length: 2 * x.length }, (_, i) => {
      const row = Math.floor(i / (2 * size));
      const [source, at] = i % (2 * size) < size ? [x, i % size] : [y, i % size];
      return source[row * size + at];
    });
  const case_ = {
    rows: ROWS,
    states: 2,
    heads: HEADS,
    headDim: DIM,
    v: store(interleaved(vA.values, vB.values, HEADS * DIM), "float16"),
    s: interleaved(sA, sB, HEADS),
  };
  assert.equal(mergeMiss(case_, answer), null);
  const exact = mergedStates(case_);
  // Theirs is as near to float64 as rounding to float16 lets it be, which says that the case is theirs.
  for (
    const [theirs, ours, of64, bound] of [
      [golden.out, answer.out, exact.out, 5e-4],
      [golden.lse, answer.lse, exact.lse, 2e-6],
    ] as const
  ) {
    of64.forEach((x, i) => {
      assert.ok(Math.abs(theirs[i] - x) <= bound, `FlashInfer's ${theirs[i]}, not ${x}`);
      assert.ok(Math.abs(theirs[i] - ours[i]) <= 2 * bound, `${ours[i]}, not ${theirs[i]}`);
    });
  }
});
