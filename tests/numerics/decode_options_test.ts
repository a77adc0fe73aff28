/**
 * Decode against the float64 oracle with each option, alone and with others: windows, soft caps,
 * sinks, scales by head, bases of lse.
 */

import assert from "node:assert/strict";
import { batchDecodeWithPaddedKvCache } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import {
  type DecodeSpec,
  decodeTest,
  drawValues,
  makeInputs,
  runDecode,
} from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";

const SMALL = {
  batch: 5,
  kvLen: 90,
  heads: [6, 2],
  headDim: 32,
  seqLens: [90, 0, 1, 33, 64],
} as const satisfies DecodeSpec;

decodeTest(
  "decode: sliding windows, of every length around the keys' number",
  [0, 1, 2, 31, 32, 33, 63, 64, 65, 88, 89, 90, 1000, 2 ** 31, 2 ** 32, 2 ** 40].map((
    windowLeft,
    i,
  ) => ({ ...SMALL, windowLeft, kvLayout: i % 2 ? "HND" : "NHD" })),
);

onEachBackend("decode: what lies before a window has no influence", async (device) => {
  for (const windowLeft of [0, 7, 40]) {
    const spec: DecodeSpec = { ...SMALL, windowLeft, kvDtype: "float16" };
    const clean = await runDecode(device, makeInputs(spec));
    const values = drawValues(spec);
    const rowSize = 2 * 32;
    spec.seqLens!.forEach((length, request) => {
      for (let token = 0; token < length - 1 - windowLeft; token++) {
        const row = (request * 90 + token) * rowSize;
        values.k.fill(NaN, row, row + rowSize);
        values.v.fill(NaN, row, row + rowSize);
      }
    });
    const { out, lse } = await runDecode(device, makeInputs(spec, values));
    assertSameBits(out, clean.out, `out, window ${windowLeft}`);
    assertSameBits(lse, clean.lse, `lse, window ${windowLeft}`);
  }
});

// Logits are drawn with a deviation of 1; smScale makes them small or large beside the cap.
decodeTest("decode: soft caps, from those that flatten all to those that change nothing", [
  ...[1e-3, 0.5, 1, 30, 50, 1e6].map((logitsSoftCap) => ({ ...SMALL, logitsSoftCap })),
  ...[1, 20].map((smScale) => ({ ...SMALL, logitsSoftCap: 5, smScale })),
  { ...SMALL, logitsSoftCap: 0 },
  { ...SMALL, logitsSoftCap: 50, smScale: -1, kvDtype: "float8_e4m3fn" },
]);

decodeTest("decode: sinks near, far above and far below the logits", [
  { ...SMALL, sinks: [-1e4, -80, -20, -3, -1, 0] },
  { ...SMALL, sinks: [0, 1, 3, 20, 80, 1e4] },
  { ...SMALL, sinks: [1e30, -1e30, 1e30, -1e30, 1e9, -1e9] },
  { ...SMALL, sinks: [100, 90, 80, 70, 60, 50], smScale: 20, kvLayout: "HND" },
  { ...SMALL, sinks: [1, 2, 3, 4, 5, 6], vScale: 3, kvDtype: "float8_e5m2" },
]);

onEachBackend("decode: a request without keys has its sink as lse", async (device) => {
  const sinks = [-2, 0, 0.5, 3, 7, 100];
  const spec: DecodeSpec = { ...SMALL, sinks };
  const { out, lse } = await runDecode(device, makeInputs(spec));
  assert.ok(out.subarray(192, 384).every((x) => Object.is(x, 0)));
  sinks.forEach((sink, head) => {
    assert.ok(Math.abs(lse[6 + head] - sink * Math.LOG2E) <= 1e-5 * Math.abs(sink), `head ${head}`);
  });
});

decodeTest("decode: lse in natural logarithms", [
  { ...SMALL, lseBase: "ln" },
  { ...SMALL, lseBase: "log2" },
  { ...SMALL, lseBase: "ln", sinks: [-5, -1, 0, 1, 5, 50] },
  { ...SMALL, lseBase: "ln", smScale: 10 },
]);

decodeTest("decode: scales of each head", [
  { ...SMALL, qScale: [0.5, 1, 2, 3, 0.25, 4] },
  { ...SMALL, kScale: [0.25, 2] },
  { ...SMALL, vScale: [-3, 0.125] },
  { ...SMALL, qScale: 0.5 },
  {
    ...SMALL,
    qDtype: "float8_e4m3fn",
    kvDtype: "float8_e4m3fn",
    outDtype: "float32",
    qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
    kScale: [0.5, 1.25],
    vScale: [3, 0.01],
    kvLayout: "HND",
  },
]);

onEachBackend("decode: scales and sinks in tensors have the bits of arrays", async (device) => {
  const spec: DecodeSpec = {
    ...SMALL,
    qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
    kScale: [0.5, 1.25],
    vScale: [3, 0.01],
    sinks: [-1, 0, 1, 2, 3, 4],
  };
  const inputs = makeInputs(spec);
  const expected = await runDecode(device, inputs);
  const list = (values: unknown) =>
    device.tensor(values as number[], [(values as number[]).length], "float32");
  using q = device.tensorFromBytes(inputs.q.bytes, [5, 6, 32], "float32");
  using k = device.tensorFromBytes(inputs.k.bytes, [5, 90, 2, 32], "float32");
  using v = device.tensorFromBytes(inputs.v.bytes, [5, 90, 2, 32], "float32");
  const seqLens = [...spec.seqLens!];
  const given = [spec.qScale, spec.kScale, spec.vScale, spec.sinks].map(list);
  const [qScale, kScale, vScale, sinks] = given;
  const options = { qScale, kScale, vScale, sinks, seqLens, returnLse: true } as const;
  const call = batchDecodeWithPaddedKvCache(q, k, v, options);
  // Nothing that the caller does to his own things after the call changes its answer.
  for (const tensor of given) tensor.destroy();
  seqLens.fill(0);
  const result = await call;
  using out = result.out;
  using lse = result.lse;
  assertSameBits(await out.read(), expected.out, "out");
  assertSameBits(await lse.read(), expected.lse, "lse");
});

const ALL = {
  ...SMALL,
  qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
  kScale: [0.5, 1.25],
  vScale: [2, -0.5],
  windowLeft: 40,
  logitsSoftCap: 3,
  sinks: [-1, 0, 1, 2, -3, 4],
} as const;

/** The same for one query head on each KV head, whose kernels compile in less time. */
const ONE = { ...ALL, heads: [2, 2], qScale: [0.5, 2], sinks: [-1, 4] } as const;

decodeTest("decode: many options at once", [
  { ...ALL },
  { ...ALL, outScale: 0.01, outDtype: "float8_e4m3fn" },
  { ...ALL, posEncodingMode: "ALIBI", lseBase: "ln" },
  { ...ALL, posEncodingMode: "ROPE_LLAMA", ropeScale: 2, ropeTheta: 5e5 },
  { ...ONE, posEncodingMode: "ROPE_LLAMA", kvDtype: "float8_e4m3fn", kvLayout: "HND" },
  { ...ONE, posEncodingMode: "ALIBI", kvDtype: "float8_e5m2", qDtype: "float16" },
]);

onEachBackend("decode: options that another needs have no effect without it", async (device) => {
  const plain = await runDecode(device, makeInputs(SMALL));
  const unused = { ropeScale: 3, ropeTheta: 7, windowLeft: -1, logitsSoftCap: 0 };
  const { out, lse } = await runDecode(device, makeInputs({ ...SMALL, ...unused }));
  assertSameBits(out, plain.out, "out");
  assertSameBits(lse, plain.lse, "lse");
});

const BASE: DecodeSpec = { batch: 2, kvLen: 75, heads: [6, 2], headDim: 32, seqLens: [75, 18] };

onEachBackend(
  "NaN and infinity stay in their own request and head, under every option",
  async (device) => {
    for (const kvDtype of ["float16", "float8_e4m3fn", "float8_e5m2"] as const) {
      const clean = makeInputs({ ...BASE, kvDtype, logitsSoftCap: 20, windowLeft: 50 });
      const before = await runDecode(device, clean);
      const dirty = makeInputs({ ...BASE, kvDtype, logitsSoftCap: 20, windowLeft: 50 });
      // Request 0, token 70, KV head 1: within the window. Token 3: before it.
      const row = (token: number) =>
        ((token * 2 + 1) * 32) * (dirty.k.bytes.length / (2 * 75 * 2 * 32));
      const nan = kvDtype === "float16" ? [0x00, 0x7e] : [0x7f];
      dirty.k.bytes.set(nan, row(70));
      dirty.v.bytes.set(nan, row(3));
      const after = await runDecode(device, dirty);
      for (let head = 0; head < 12; head++) {
        const isHit = head >= 3 && head < 6;
        const values = after.out.subarray(head * 32, head * 32 + 32);
        if (isHit) assert.ok(values.every(Number.isNaN), `${kvDtype}, head ${head}`);
        else assert.deepEqual(values, before.out.subarray(head * 32, head * 32 + 32));
        assert.equal(Number.isNaN(after.lse[head]), isHit, `${kvDtype}, lse of head ${head}`);
      }
    }
  },
);

onEachBackend("NaN in one element of v stays in its column", async (device) => {
  for (const kvDtype of ["float16", "float8_e4m3fn", "float8_e5m2"] as const) {
    const inputs = makeInputs({ ...BASE, kvDtype });
    const before = await runDecode(device, inputs);
    const elementBytes = inputs.v.bytes.length / (2 * 75 * 2 * 32);
    const nan = kvDtype === "float16" ? [0x00, 0x7e] : [0x7f];
    // Request 0, KV head 0: dim 5 of token 7, dim 18 of token 74.
    for (const [token, dim] of [[7, 5], [74, 18]]) {
      inputs.v.bytes.set(nan, (token * 2 * 32 + dim) * elementBytes);
    }
    const after = await runDecode(device, inputs);
    after.out.forEach((x, i) => {
      const isHit = i < 3 * 32 && (i % 32 === 5 || i % 32 === 18);
      if (isHit) assert.ok(Number.isNaN(x), `${kvDtype}, ${i}`);
      else assert.equal(x, before.out[i], `${kvDtype}, ${i}`);
    });
    assert.deepEqual(after.lse, before.lse);
  }
});
