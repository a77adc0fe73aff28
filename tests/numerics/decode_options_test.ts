/**
 * Each option of decode against the float64 oracle, on every backend. Few sizes: each new combination
 * of dtypes, head dim, group and option is another kernel to compile.
 */

import assert from "node:assert/strict";
import { batchDecodeWithPaddedKvCache } from "@kvasir/attention";
import { type DecodeSpec, decodeTest, makeInputs, runDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";

const BASE: DecodeSpec = { batch: 2, kvLen: 75, heads: [6, 2], headDim: 32, seqLens: [75, 18] };
const HALF: DecodeSpec = { ...BASE, qDtype: "float16", kvDtype: "float8_e4m3fn", heads: [8, 1] };
const upTo = (n: number, f: (i: number) => number) => Array.from({ length: n }, (_, i) => f(i));

decodeTest("decode: scales of each head", [
  { ...BASE, qScale: upTo(6, (i) => 0.25 * (i + 1)), kScale: [0.5, 2], vScale: [-1, 3] },
  { ...HALF, kScale: [0.125], vScale: 1.5 },
  { ...BASE, qScale: 0, kvLayout: "HND" },
]);

decodeTest(
  "decode: sliding windows",
  [0, 1, 17, 18, 63, 64, 74, 1000].flatMap((windowLeft) => [
    { ...BASE, windowLeft },
    ...(windowLeft === 17 ? [{ ...HALF, windowLeft, seqLens: [75, 0] }] : []),
  ]),
);

decodeTest("decode: soft caps, also far beyond them", [
  { ...BASE, logitsSoftCap: 30 },
  { ...BASE, logitsSoftCap: 0.5 },
  { ...BASE, logitsSoftCap: 50, magnitude: 12 },
  { ...BASE, logitsSoftCap: 1e4 },
  { ...HALF, logitsSoftCap: 8 },
]);

decodeTest("decode: sinks near, far above and far below the logits", [
  { ...BASE, sinks: upTo(6, (i) => i - 3) },
  { ...BASE, sinks: [-300, 300, 40, -40, 0, 80], seqLens: [75, 0] },
  { ...BASE, sinks: upTo(6, () => 5), magnitude: 3 },
  { ...HALF, sinks: upTo(8, (i) => 2 * i - 9), lseBase: "ln" },
]);

decodeTest("decode: natural logarithms", [
  { ...BASE, lseBase: "ln", seqLens: [75, 0] },
  { ...HALF, lseBase: "ln" },
]);

decodeTest("decode: ALiBi, for head counts that are powers of two and others", [
  { ...BASE, posEncodingMode: "ALIBI" },
  { ...BASE, heads: [12, 2], posEncodingMode: "ALIBI" },
  { ...HALF, posEncodingMode: "ALIBI" },
  { ...BASE, posEncodingMode: "ALIBI", logitsSoftCap: 4, windowLeft: 40 },
]);

decodeTest("decode: rotary encoding over dtypes, head dims and frequencies", [
  { ...BASE, posEncodingMode: "ROPE_LLAMA" },
  { ...BASE, headDim: 40, kvDtype: "float8_e4m3fn", posEncodingMode: "ROPE_LLAMA" },
  { ...BASE, headDim: 8, kvDtype: "float16", posEncodingMode: "ROPE_LLAMA" },
  { ...BASE, headDim: 64, kvDtype: "bfloat16", posEncodingMode: "ROPE_LLAMA", ropeTheta: 5e5 },
  { ...BASE, posEncodingMode: "ROPE_LLAMA", ropeScale: 8, kvLayout: "HND" },
  { ...HALF, headDim: 128, kvLen: 300, seqLens: [300, 257], posEncodingMode: "ROPE_LLAMA" },
]);

decodeTest("decode: rotary encoding at far positions", [
  { kvLen: 6000, heads: [1, 1], headDim: 16, posEncodingMode: "ROPE_LLAMA", kvDtype: "float16" },
  {
    kvLen: 6000,
    heads: [1, 1],
    headDim: 16,
    posEncodingMode: "ROPE_LLAMA",
    kvDtype: "float16",
    windowLeft: 600,
  },
]);

decodeTest("decode: FP8 queries, and outputs of every dtype", [
  { ...BASE, qDtype: "float8_e4m3fn", qScale: 0.5 },
  { ...BASE, qDtype: "float8_e5m2", kvDtype: "float8_e5m2", outDtype: "float32" },
  { ...BASE, outDtype: "float16" },
  { ...BASE, outDtype: "bfloat16" },
  { ...BASE, outDtype: "float8_e4m3fn" },
  { ...BASE, outDtype: "float8_e5m2", qDtype: "float16", kvDtype: "float16" },
  { ...BASE, outDtype: "float8_e4m3fn", vScale: 1000 }, // saturates
]);

decodeTest("decode: all options at once", [
  {
    ...BASE,
    kvDtype: "float8_e5m2",
    qScale: upTo(6, (i) => 1 + i / 8),
    kScale: [2, 0.5],
    vScale: [0.5, -2],
    windowLeft: 30,
    logitsSoftCap: 6,
    sinks: upTo(6, (i) => i / 2),
    posEncodingMode: "ALIBI",
    lseBase: "ln",
    outDtype: "float16",
  },
]);

onEachBackend(
  "scales and sinks may be tensors, with the same bits in the answer",
  async (device) => {
    const { q, k, v, problem } = makeInputs(BASE);
    const shape = [2, 75, 2, 32];
    using qTensor = device.tensorFromBytes(q.bytes, [2, 6, 32], q.dtype);
    using kTensor = device.tensorFromBytes(k.bytes, shape, k.dtype);
    using vTensor = device.tensorFromBytes(v.bytes, shape, v.dtype);
    const kScale = [0.5, 2];
    const sinks = [0, 1, 2, 3, 4, 5];
    using kScaleTensor = device.tensor(kScale, [2], "float32");
    using sinkTensor = device.tensor(sinks, [6], "float32");
    const options = { seqLens: problem.kvLens };
    using plain = await batchDecodeWithPaddedKvCache(qTensor, kTensor, vTensor, {
      ...options,
      kScale,
      sinks,
    });
    using held = await batchDecodeWithPaddedKvCache(qTensor, kTensor, vTensor, {
      ...options,
      kScale: kScaleTensor,
      sinks: sinkTensor,
    });
    assert.deepEqual(await held.readBytes(), await plain.readBytes());
  },
);

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
