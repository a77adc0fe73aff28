/** Custom masks against the oracle: at every alignment of bits, with every other restriction. */

import assert from "node:assert/strict";
import { assertSameAnswer, assertSameBits } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import {
  checkPrefill,
  drawPrefill,
  makePrefill,
  type PrefillSpec,
  prefillTest,
  runPrefill,
  runSinglePrefill,
} from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";

const BASE = { heads: [3, 1], headDim: 16, maskDensity: 0.6 } as const;

// Rows of every length: each begins at every bit of a byte, and ends at every bit of a word.
prefillTest(
  "prefill: masks of rows of every length",
  [...Array.from({ length: 34 }, (_, i) => i + 1), 63, 64, 65, 95, 96, 97].map((kvLen) => ({
    ...BASE,
    batch: 2,
    qoLen: 9,
    kvLen,
    seed: kvLen,
  })),
);

prefillTest(
  "prefill: masks of every number of queries",
  [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 65].map((qoLen) => ({ ...BASE, qoLen, kvLen: 77 })),
);

const RAGGED: PrefillSpec = {
  ...BASE,
  batch: 5,
  qoLen: 21,
  kvLen: 70,
  qoLens: [21, 5, 0, 1, 13],
  seqLens: [70, 3, 9, 33, 0],
};

prefillTest("prefill: masks with lengths, in both layouts", [
  RAGGED,
  { ...RAGGED, kvLayout: "HND" },
  { ...RAGGED, maskDensity: 0.03 },
]);

prefillTest(
  "ragged prefill: masks of every request's own size",
  [RAGGED, { ...RAGGED, kvLayout: "HND" }, { ...RAGGED, maskDensity: 0.03 }],
  { run: runRagged },
);

prefillTest(
  "prefill: masks and windows, each of which hides keys",
  [0, 1, 5, 31, 32, 33, 80].map((windowLeft) => ({ ...RAGGED, windowLeft })),
);

prefillTest("prefill: masks in the place of causal, with the other options", [
  { ...RAGGED, causal: true },
  { ...RAGGED, sinks: [-1, 0.5, 3], logitsSoftCap: 5 },
  { ...RAGGED, posEncodingMode: "ALIBI" },
]);

onEachBackend("prefill: a mask has the same bits in every form", async (device) => {
  const inputs = makePrefill(RAGGED);
  const booleans = await runPrefill(device, inputs);
  for (const form of ["numbers", "packed"] as const) {
    assertSameAnswer(await runPrefill(device, inputs, form), booleans, form);
  }
  const ragged = await runRagged(device, inputs);
  for (const form of ["numbers", "packed"] as const) {
    assertSameAnswer(await runRagged(device, inputs, form), ragged, `ragged, ${form}`);
  }
  const alone = makePrefill({ ...BASE, qoLen: 9, kvLen: 13 });
  const single = await runSinglePrefill(device, alone);
  for (const form of ["numbers", "packed"] as const) {
    assertSameAnswer(await runSinglePrefill(device, alone, form), single, `single, ${form}`);
  }
});

onEachBackend("prefill: a mask that is a triangle is causal", async (device) => {
  const spec: PrefillSpec = { heads: [3, 1], headDim: 16, batch: 2, qoLen: 21, kvLen: 45 };
  const values = drawPrefill(spec);
  const triangle = Array.from(
    { length: 2 * 21 * 45 },
    (_, i) => i % 45 <= Math.floor(i / 45) % 21 + 45 - 21,
  );
  const masked = makePrefill(spec, values, triangle);
  const causal = makePrefill({ ...spec, causal: true }, values);
  const [a, b] = [
    await checkPrefill(device, "mask", masked),
    await checkPrefill(device, "causal", causal),
  ];
  a.out.forEach((x, i) => assert.ok(Math.abs(x - b.out[i]) < 4e-6, `out ${i}`));
  a.lse.forEach((x, i) => assert.ok(Math.abs(x - b.lse[i]) < 4e-6, `lse ${i}`));
});

onEachBackend("prefill: queries whose masks show nothing give 0 and -Infinity", async (device) => {
  const spec: PrefillSpec = { heads: [3, 1], headDim: 16, qoLen: 20, kvLen: 40 };
  for (const emptyRows of [[0], [19], [3, 4, 5, 17], Array.from({ length: 20 }, (_, i) => i)]) {
    const mask = Array.from({ length: 800 }, (_, i) => !emptyRows.includes(Math.floor(i / 40)));
    const { out, lse } = await checkPrefill(
      device,
      `rows ${emptyRows}`,
      makePrefill(spec, drawPrefill(spec), mask),
    );
    for (const row of emptyRows) {
      assert.ok(out.subarray(row * 48, (row + 1) * 48).every((x) => Object.is(x, 0)), `out ${row}`);
      assert.ok(lse.subarray(row * 3, (row + 1) * 3).every((x) => x === -Infinity), `lse ${row}`);
    }
  }
});

onEachBackend("prefill: what a mask hides from all has no influence", async (device) => {
  const spec: PrefillSpec = { heads: [3, 1], headDim: 16, qoLen: 20, kvLen: 70 };
  const hidden = (key: number) => key % 7 === 3 || (key >= 32 && key < 64);
  const mask = Array.from({ length: 20 * 70 }, (_, i) => !hidden(i % 70));
  const clean = await runPrefill(device, makePrefill(spec, drawPrefill(spec), mask));
  const values = drawPrefill(spec);
  for (let key = 0; key < 70; key++) {
    if (!hidden(key)) continue;
    values.k.fill(NaN, key * 16, key * 16 + 16);
    values.v.fill(1e30, key * 16, key * 16 + 16); // 0 times NaN would be NaN
  }
  const dirty = await runPrefill(device, makePrefill(spec, values, mask));
  assertSameBits(dirty.out, clean.out, "out");
  assertSameBits(dirty.lse, clean.lse, "lse");
});
