/** Decode where softmax and its tiles are easily got wrong; some are bugs that others have had. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import {
  checkDecode,
  type DecodeSpec,
  decodeTest,
  drawValues,
  makeInputs,
  runDecode,
  shapeOf,
} from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { decode, roundTo } from "../support/formats.ts";
import { cacheRow } from "../support/oracle.ts";
import { nextFloat32, normals } from "../support/values.ts";

onEachBackend("decode: one key gives exactly its value", async (device) => {
  const dtypes: readonly (readonly [q: DType, kv: DType])[] = [
    ["float32", "float32"],
    ["float16", "float16"],
    ["bfloat16", "bfloat16"],
    ["float16", "float8_e4m3fn"],
    ["bfloat16", "float8_e5m2"],
  ];
  for (const [qDtype, kvDtype] of dtypes) {
    const inputs = makeInputs({
      batch: 3,
      kvLen: 9,
      seqLens: [1, 1, 1],
      heads: [4, 2],
      headDim: 16,
      qDtype,
      kvDtype,
    });
    const { out } = await runDecode(device, inputs);
    out.forEach((got, i) => {
      const head = Math.floor(i / 16) % 4;
      const row = cacheRow(inputs.problem, Math.floor(i / 64), 0, Math.floor(head / 2));
      assert.equal(got, roundTo(inputs.v.values[row + i % 16], qDtype), `${qDtype}, ${kvDtype}`);
    });
  }
});

onEachBackend("decode: a result is rounded once, to nearest even", async (device) => {
  // One key in float32 comes out unchanged, so that each value below is rounded alone.
  const ties = [1, 3, 5].flatMap((odd) => [1 + odd * 2 ** -11, 1 + odd * 2 ** -8, odd * 2 ** -25]);
  const edges = [...ties, 65504, 65519.99, 65520, 1e9, 3.4e38, 2 ** -14, 2 ** -24, 2 ** -26, 1e-30];
  const around = edges.flatMap((x) => [-1, 0, 1].map((steps) => nextFloat32(x, steps)));
  const hard = [...around, ...around.map((x) => -x), 0, ...normals(1024, 1)].slice(0, 1024);
  for (const qDtype of ["float32", "float16", "bfloat16"] as const) {
    const spec: DecodeSpec = { kvLen: 1, heads: [32, 32], headDim: 32, qDtype };
    const values = { ...drawValues(spec), v: Float32Array.from(hard) };
    const { out } = await runDecode(device, makeInputs(spec, values));
    out.forEach((got, i) => {
      assert.equal(got, roundTo(values.v[i], qDtype), `${values.v[i]} in ${qDtype}`);
    });
  }
});

onEachBackend(
  "decode: every position is read, and once: a dominant key at each",
  async (device) => {
    const spec: DecodeSpec = { batch: 140, kvLen: 140, heads: [2, 1], headDim: 32, magnitude: 0.5 };
    const shape = shapeOf(spec);
    const values = drawValues(spec);
    for (let request = 0; request < 140; request++) {
      // Both heads ask for the key at the position that is the request's number.
      const key = cacheRow(shape, request, request, 0);
      for (let d = 0; d < 32; d++) {
        values.q[request * 64 + d] = values.q[request * 64 + 32 + d] = 80 * values.k[key + d];
      }
    }
    const inputs = makeInputs(spec, values);
    const { out } = await checkDecode(device, "dominant keys", inputs);
    for (let request = 0; request < 140; request++) {
      const value = cacheRow(inputs.problem, request, request, 0);
      for (let d = 0; d < 32; d++) {
        const off = Math.abs(out[request * 64 + d] - values.v[value + d]);
        assert.ok(off < 1e-5, `request ${request}, element ${d}: off by ${off}`);
      }
    }
  },
);

onEachBackend("decode: each head of a group answers its own query", async (device) => {
  // Head h asks for key h alone, so that mixed up heads give another's value.
  for (const group of [3, 17, 64]) {
    const spec: DecodeSpec = { kvLen: group, heads: [2 * group, 2], headDim: 64 };
    const values = drawValues(spec);
    for (let head = 0; head < 2 * group; head++) {
      const key = cacheRow(shapeOf(spec), 0, head % group, Math.floor(head / group));
      for (let d = 0; d < 64; d++) values.q[head * 64 + d] = 10 * values.k[key + d];
    }
    await checkDecode(device, `group ${group}`, makeInputs(spec, values));
  }
});

onEachBackend("decode: equal logits give the mean, however low they are", async (device) => {
  // FlashInfer #4267: with Q = 64, K = -64 a finite mask of -5e4 lay above the valid logits.
  for (const [q, k, smScale] of [[64, -64, undefined], [64, -64, 1], [64, 64, 1], [0, 3, 1]]) {
    for (const kvLen of [1, 2, 33]) {
      const spec: DecodeSpec = {
        batch: 2,
        kvLen: kvLen + 5,
        seqLens: [kvLen, kvLen],
        heads: [4, 2],
        headDim: 128,
        smScale: smScale as number | undefined,
        kvDtype: "float16",
      };
      const values = drawValues(spec);
      values.q.fill(q as number);
      values.k.fill(k as number);
      await checkDecode(device, `Q ${q}, K ${k}, ${kvLen} keys`, makeInputs(spec, values));
    }
  }
});

onEachBackend("decode: rising and falling logits", async (device) => {
  // The running maximum changes at every step, or never after the first.
  for (const slope of [0.7, -0.7, 13, -13]) {
    const spec: DecodeSpec = { kvLen: 300, heads: [2, 1], headDim: 8, smScale: 1 };
    const values = drawValues(spec);
    values.q[0] = values.q[8] = slope;
    for (let token = 0; token < 300; token++) values.k[token * 8] = 1.1 * token;
    await checkDecode(device, `slope ${slope}`, makeInputs(spec, values));
  }
});

onEachBackend(
  "decode: requests without keys give 0 and -Infinity, beside others",
  async (device) => {
    for (const kvDtype of ["float32", "float8_e4m3fn"] as const) {
      const spec: DecodeSpec = { batch: 4, kvLen: 20, heads: [6, 2], headDim: 64, kvDtype };
      const mixed = makeInputs({ ...spec, seqLens: [0, 20, 0, 1] });
      const { out, lse } = await checkDecode(device, "mixed", mixed);
      for (const request of [0, 2]) {
        assert.ok(out.subarray(request * 384, (request + 1) * 384).every((x) => Object.is(x, 0)));
        assert.ok(lse.subarray(request * 6, (request + 1) * 6).every((x) => x === -Infinity));
      }
      await checkDecode(device, "none at all", makeInputs({ ...spec, seqLens: [0, 0, 0, 0] }));
    }
  },
);

onEachBackend(
  "decode: a result in float16 that overflows is infinite, not wrapped",
  async (device) => {
    const spec: DecodeSpec = {
      kvLen: 4,
      heads: [2, 1],
      headDim: 8,
      qDtype: "float16",
      vScale: 1e6,
    };
    await checkDecode(device, "overflow", makeInputs(spec));
  },
);

onEachBackend("decode: subnormal values survive", async (device) => {
  for (const [kvDtype, tiny] of [["float8_e4m3fn", 2 ** -9], ["float8_e5m2", 2 ** -16]] as const) {
    const spec: DecodeSpec = { kvLen: 5, heads: [2, 1], headDim: 16, kvDtype, vScale: 1 / tiny };
    const values = drawValues(spec);
    values.v.forEach((_, i) => values.v[i] = (1 + i % 3) * tiny);
    await checkDecode(device, kvDtype, makeInputs(spec, values));
  }
  for (const kvDtype of ["float16", "bfloat16"] as const) {
    const spec: DecodeSpec = { kvLen: 5, heads: [2, 1], headDim: 16, kvDtype, vScale: 2 ** 23 };
    const values = drawValues(spec);
    values.v.forEach((_, i) => values.v[i] = (1 + i % 3) * 2 ** -24);
    await checkDecode(device, kvDtype, makeInputs(spec, values));
  }
});

onEachBackend("decode: every FP8 code counts as its value, in k and in v", async (device) => {
  for (const kvDtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    // 256 tokens, token t holds code t everywhere; the largest codes would drown the others, so
    // the queries are small.
    const spec: DecodeSpec = { kvLen: 256, heads: [2, 1], headDim: 16, kvDtype, smScale: 2 ** -12 };
    const inputs = makeInputs(spec);
    for (const { bytes, values } of [inputs.k, inputs.v]) {
      for (let i = 0; i < bytes.length; i++) {
        const code = Math.floor(i / spec.headDim);
        const value = decode(code, kvDtype);
        // Infinity and NaN have tests of their own.
        bytes[i] = Number.isFinite(value) ? code : 0;
        values[i] = Number.isFinite(value) ? value : 0;
      }
    }
    await checkDecode(device, kvDtype, inputs);
  }
});

const LARGE = { batch: 2, kvLen: 80, heads: [4, 2], headDim: 64, seqLens: [80, 41] } as const;

decodeTest("decode: large logits", [
  { ...LARGE, smScale: 5 },
  { ...LARGE, magnitude: 10 },
  { ...LARGE, smScale: 100, kvDtype: "float8_e4m3fn" },
  { ...LARGE, kScale: 1000, kvDtype: "float8_e5m2" },
  { ...LARGE, vScale: 1e6 },
]);
