/** Decode with rotary encoding and ALiBi, against the float64 oracle. */

import assert from "node:assert/strict";
import {
  type DecodeSpec,
  decodeTest,
  drawValues,
  makeInputs,
  runDecode,
} from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { rotate } from "../support/positions.ts";

const SMALL = {
  batch: 4,
  kvLen: 90,
  heads: [6, 2],
  headDim: 32,
  seqLens: [90, 0, 1, 33],
} as const satisfies DecodeSpec;
const ROPE = { posEncodingMode: "ROPE_LLAMA" } as const;
const ALIBI = { posEncodingMode: "ALIBI" } as const;

decodeTest("decode: rotary encoding", [
  { ...SMALL, ...ROPE },
  { ...SMALL, ...ROPE, kvLayout: "HND" },
  { ...SMALL, ...ROPE, ropeScale: 8, ropeTheta: 5e5 },
  { ...SMALL, ...ROPE, ropeScale: 0.25, ropeTheta: 10 },
  { ...SMALL, ...ROPE, windowLeft: 20 },
]);

for (const kvDtype of ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const) {
  decodeTest(`decode: rotary encoding over a ${kvDtype} cache`, [
    { ...SMALL, ...ROPE, heads: [2, 2], kvDtype, qDtype: "float16", kScale: 0.5 },
  ]);
}

// The halves of a row must lie in one lane, whatever their size.
for (const headDim of [8, 16, 24, 40, 64, 80, 96, 112, 128, 256]) {
  decodeTest(`decode: rotary encoding, head dim ${headDim}`, [
    {
      kvLen: 40,
      heads: [2, 1],
      headDim,
      ...ROPE,
      kvDtype: headDim % 16 ? "float16" : "float8_e4m3fn",
    },
  ]);
}

decodeTest(
  "decode: rotary encoding of head dims that are no multiple of 8",
  [2, 6, 10, 34].map((headDim) => ({ kvLen: 40, heads: [4, 2], headDim, ...ROPE })),
  ["wasm"],
);

// Float32 angles are off by hundredths here.
decodeTest("decode: rotary encoding at long positions", [
  { kvLen: 9000, heads: [2, 2], headDim: 8, ...ROPE },
  { kvLen: 140_000, heads: [1, 1], headDim: 8, ...ROPE, windowLeft: 3000 },
  { kvLen: 140_000, heads: [1, 1], headDim: 8, ...ROPE, windowLeft: 500, ropeScale: 1 / 64 },
]);

onEachBackend("decode: rotary encoding is that of rotated q and k", async (device) => {
  const spec: DecodeSpec = { kvLen: 50, heads: [2, 2], headDim: 16 };
  const values = drawValues(spec);
  const inside = await runDecode(device, makeInputs({ ...spec, ...ROPE }, values));
  const speed = { scale: 1, theta: 1e4 };
  const turned = (x: Float32Array, positionOf: (row: number) => number) => {
    const all = new Float32Array(x.length);
    for (let row = 0; row < x.length / 16; row++) {
      const part = x.subarray(row * 16, (row + 1) * 16);
      all.set(rotate(part, positionOf(row), speed, (y) => y), row * 16);
    }
    return all;
  };
  const before = {
    ...values,
    q: turned(values.q, () => 49),
    k: turned(values.k, (row) => Math.floor(row / 2)),
  };
  const outside = await runDecode(device, makeInputs(spec, before));
  inside.out.forEach((x, i) => assert.ok(Math.abs(x - outside.out[i]) < 3e-6, `element ${i}`));
  inside.lse.forEach((x, i) => assert.ok(Math.abs(x - outside.lse[i]) < 3e-6, `lse ${i}`));
});

decodeTest("decode: ALiBi", [
  { ...SMALL, ...ALIBI },
  { ...SMALL, ...ALIBI, heads: [2, 2], kvLayout: "HND", kvDtype: "float8_e4m3fn" },
  { ...SMALL, ...ALIBI, smScale: 3, windowLeft: 20 },
  { ...SMALL, ...ALIBI, heads: [2, 2], logitsSoftCap: 2 },
]);

// Powers of two, and the interleaved rule.
decodeTest(
  "decode: ALiBi's slopes for any number of heads",
  [1, 2, 3, 5, 7, 8, 11, 12, 16, 24, 40].map((heads) => ({
    kvLen: 30,
    heads: [heads, heads] as const,
    headDim: 16,
    ...ALIBI,
  })),
);

decodeTest("decode: ALiBi over a long context", [
  { kvLen: 20_000, heads: [2, 2], headDim: 16, ...ALIBI },
  { kvLen: 20_000, heads: [12, 12], headDim: 8, ...ALIBI, windowLeft: 1500 },
]);
