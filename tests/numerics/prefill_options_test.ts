/**
 * Prefill against the float64 oracle with each option, alone and with others, over requests of many
 * shapes: with more keys than queries, and fewer, and none.
 */

import assert from "node:assert/strict";
import { batchPrefillWithPaddedKvCache } from "@kvasir/attention";
import { assertSameAnswer, assertSameBits } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import {
  checkPrefill,
  drawPrefill,
  makePrefill,
  type PrefillSpec,
  prefillTest,
  runPrefill,
} from "../support/prefill.ts";

const SMALL = {
  batch: 6,
  qoLen: 37,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  qoLens: [37, 5, 20, 1, 0, 33],
  seqLens: [70, 33, 7, 64, 12, 0],
  causal: true,
} as const satisfies PrefillSpec;

prefillTest("prefill: causal or not, more queries than keys among them", [
  SMALL,
  { ...SMALL, causal: false },
  { ...SMALL, kvLayout: "HND" },
]);

const WINDOWS = [0, 1, 2, 15, 16, 31, 32, 33, 63, 64, 69, 70, 1000, 2 ** 31, 2 ** 32, 2 ** 40];

for (const causal of [true, false]) {
  prefillTest(
    `prefill: sliding windows, ${causal ? "causal" : "of which nothing ends"}`,
    WINDOWS.map((windowLeft, i) => ({
      ...SMALL,
      windowLeft,
      causal,
      kvLayout: i % 2 ? "HND" : "NHD",
    })),
  );
}

prefillTest("prefill: soft caps", [
  ...[1e-3, 1, 50].map((logitsSoftCap) => ({ ...SMALL, logitsSoftCap })),
  { ...SMALL, logitsSoftCap: 5, smScale: 20 },
  { ...SMALL, logitsSoftCap: 5, causal: false, windowLeft: 9 },
]);

prefillTest("prefill: sinks near, far above and far below the logits", [
  { ...SMALL, sinks: [-1e4, -80, -3, 0, 1, 20] },
  { ...SMALL, sinks: [1e30, -1e30, 1e4, -1e9, 80, 3] },
]);

prefillTest("prefill: scales, and lse in natural logarithms", [
  { ...SMALL, smScale: 0 },
  { ...SMALL, smScale: -0.3, lseBase: "ln" },
  { ...SMALL, qScale: [0.5, 1, 2, 3, 0.25, 4], kScale: [0.25, 2], vScale: [-3, 0.125] },
  { ...SMALL, vScale: 0, kScale: 1.5 },
]);

for (const posEncodingMode of ["ROPE_LLAMA", "ALIBI"] as const) {
  prefillTest(`prefill: positions, ${posEncodingMode}`, [
    { ...SMALL, posEncodingMode },
    { ...SMALL, posEncodingMode, causal: false },
    { ...SMALL, posEncodingMode, kvLayout: "HND", ropeScale: 3, ropeTheta: 5e5 },
    { ...SMALL, posEncodingMode, windowLeft: 11 },
    { qoLen: 3, kvLen: 600, heads: [6, 2], headDim: 16, causal: true, posEncodingMode },
  ]);
}

const ALL = {
  ...SMALL,
  qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
  kScale: [0.5, 1.25],
  vScale: [2, -0.5],
  windowLeft: 25,
  logitsSoftCap: 3,
  sinks: [-1, 0, 1, 2, -3, 4],
} as const;

prefillTest("prefill: many options at once", [
  { ...ALL, posEncodingMode: "ALIBI", lseBase: "ln" },
  { ...ALL, posEncodingMode: "ROPE_LLAMA", ropeScale: 2, causal: false },
  {
    ...ALL,
    posEncodingMode: "ROPE_LLAMA",
    qDtype: "float16",
    kvDtype: "float8_e4m3fn",
    outDtype: "bfloat16",
    headDimV: 24,
    kvLayout: "HND",
  },
]);

onEachBackend(
  "prefill: queries without keys give 0, and -Infinity or their sink",
  async (device) => {
    const sinks = [-2, 0, 0.5, 3, 7, 100];
    const spec: PrefillSpec = {
      batch: 3,
      qoLen: 9,
      kvLen: 6,
      heads: [6, 2],
      headDim: 16,
      causal: true,
      qoLens: [9, 4, 7],
      seqLens: [6, 0, 2],
    };
    for (const given of [undefined, sinks]) {
      const { out, lse } = await checkPrefill(
        device,
        `sinks ${given}`,
        makePrefill({ ...spec, sinks: given }),
      );
      const check = (request: number, queries: number, first: number) => {
        for (let row = request * 9 + first; row < request * 9 + first + queries; row++) {
          const part = out.subarray(row * 96, (row + 1) * 96);
          assert.ok(part.every((x) => Object.is(x, 0)), `out of row ${row}`);
          for (let head = 0; head < 6; head++) {
            const isQuery = row % 9 < spec.qoLens![request];
            const expected = given && isQuery ? given[head] * Math.LOG2E : -Infinity;
            const x = lse[row * 6 + head];
            const isNear = x === expected || Math.abs(x - expected) <= 1e-5 * Math.abs(expected);
            assert.ok(isNear, `lse of row ${row}, head ${head}: ${x}, not ${expected}`);
          }
        }
      };
      check(0, 3, 0); // 9 queries over 6 keys
      check(1, 9, 0); // no keys, and 4 queries
      check(2, 5, 0); // 7 queries over 2 keys
      check(2, 2, 7); // no queries
    }
  },
);

onEachBackend("prefill: without returnLse, out has the same bits", async (device) => {
  const inputs = makePrefill(SMALL);
  const { q, k, v } = inputs;
  const expected = await runPrefill(device, inputs);
  using qTensor = device.tensorFromBytes(q.bytes, [6, 37, 6, 16], "float32");
  using kTensor = device.tensorFromBytes(k.bytes, [6, 70, 2, 16], "float32");
  using vTensor = device.tensorFromBytes(v.bytes, [6, 70, 2, 16], "float32");
  using out = await batchPrefillWithPaddedKvCache(qTensor, kTensor, vTensor, {
    causal: true,
    qoLens: SMALL.qoLens,
    seqLens: SMALL.seqLens,
  });
  assertSameBits(await out.read(), expected.out, "out");
});

onEachBackend("prefill: no request, no query, no key", async (device) => {
  for (const [batch, qoLen, kvLen] of [[0, 3, 5], [2, 0, 5], [2, 3, 0], [2, 0, 0]]) {
    using q = device.empty([batch, qoLen, 6, 16], "float32");
    using k = device.empty([batch, kvLen, 2, 16], "float32");
    const result = await batchPrefillWithPaddedKvCache(q, k, k, { causal: true, returnLse: true });
    using out = result.out;
    using lse = result.lse;
    assert.deepEqual(out.shape, [batch, qoLen, 6, 16]);
    assert.deepEqual(lse.shape, [batch, qoLen, 6]);
    assert.ok((await out.read()).every((x) => x === 0));
    assert.ok((await lse.read()).every((x) => x === -Infinity));
  }
});

onEachBackend(
  "prefill: scales, sinks and masks keep what they were at the call",
  async (device) => {
    const spec: PrefillSpec = {
      ...SMALL,
      qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
      kScale: [0.5, 1.25],
      vScale: [3, 0.01],
      sinks: [-1, 0, 1, 2, 3, 4],
      maskDensity: 0.5,
    };
    const inputs = makePrefill(spec);
    const expected = await runPrefill(device, inputs);
    const list = (values: unknown) =>
      device.tensor(values as number[], [(values as number[]).length], "float32");
    using q = device.tensorFromBytes(inputs.q.bytes, [6, 37, 6, 16], "float32");
    using k = device.tensorFromBytes(inputs.k.bytes, [6, 70, 2, 16], "float32");
    using v = device.tensorFromBytes(inputs.v.bytes, [6, 70, 2, 16], "float32");
    for (const isTensor of [true, false]) {
      const seqLens = [...spec.seqLens!];
      const qoLens = Int32Array.from(spec.qoLens!);
      const customMask = Uint8Array.from(inputs.problem.mask as boolean[], Number);
      const lists = [spec.qScale, spec.kScale, spec.vScale, spec.sinks]
        .map((values) => Float32Array.from(values as number[]));
      const given = isTensor ? lists.map(list) : lists;
      const [qScale, kScale, vScale, sinks] = given;
      const call = batchPrefillWithPaddedKvCache(q, k, v, {
        ...{ qScale, kScale, vScale, sinks, seqLens, qoLens, customMask },
        returnLse: true,
      });
      // Nothing that the caller does to his own things after the call changes its answer.
      for (const one of given) if ("destroy" in one) one.destroy();
      for (const one of [seqLens, qoLens, customMask, ...lists]) one.fill(0);
      const result = await call;
      using out = result.out;
      using lse = result.lse;
      const answer = { out: await out.read(), lse: await lse.read() };
      assertSameAnswer(answer, expected, isTensor ? "tensors" : "arrays");
    }
  },
);

onEachBackend("prefill: what lies before all windows has no influence", async (device) => {
  const spec: PrefillSpec = { qoLen: 9, kvLen: 90, heads: [6, 2], headDim: 16, windowLeft: 7 };
  const clean = await runPrefill(device, makePrefill(spec));
  const values = drawPrefill(spec);
  // The first query stands at key 81, and sees from 74 on.
  values.k.fill(NaN, 0, 74 * 32);
  values.v.fill(1e30, 0, 74 * 32); // 0 times NaN would be NaN
  assertSameAnswer(await runPrefill(device, makePrefill(spec, values)), clean, "window");
});
