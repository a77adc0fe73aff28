/** Decode over combinations of the dtypes of q, cache and output. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import {
  checkDecode,
  type DecodeSpec,
  decodeTest,
  makeInputs,
  runDecode,
} from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { decode, roundTo } from "../support/formats.ts";
import { nextFloat32 } from "../support/values.ts";

const DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const;

function specOf(qDtype: DType, kvDtype: DType, outDtype: DType): DecodeSpec {
  const scales = { qScale: 0.75, kScale: 1.5, vScale: 2 };
  const sizes = { batch: 3, kvLen: 45, heads: [2, 2], headDim: 16, seqLens: [45, 18, 0] } as const;
  return { ...sizes, ...scales, qDtype, kvDtype, outDtype };
}

for (const [i, qDtype] of DTYPES.entries()) {
  // Each pair with the cache's dtype, and each pair with the output's.
  decodeTest(
    `decode: q ${qDtype}, each cache and each output`,
    DTYPES.map((kvDtype, j) => specOf(qDtype, kvDtype, DTYPES[(i + j) % 5])),
  );
  // On WebGPU every combination is another kernel to compile.
  decodeTest(
    `decode: q ${qDtype}, every cache with every output`,
    DTYPES.flatMap((kvDtype) => DTYPES.map((outDtype) => specOf(qDtype, kvDtype, outDtype))),
    ["wasm"],
  );
}

for (const outDtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
  onEachBackend(
    `decode: a result in ${outDtype} is rounded once, and saturates`,
    async (device) => {
      // One key in float32 comes out unchanged, so that each value below is rounded alone.
      const codes = [2 ** -18, 2 ** -17, 1.5 * 2 ** -16, 2 ** -10, 1.5 * 2 ** -9, 1.875 * 2 ** -7]
        .concat([1.0625, 1.1875, 1.125, 1.25, 1.375, 17, 19, 432, 448, 464, 465, 480, 500])
        .concat([57344, 61439, 61440, 65504, 1e9, 3e38, 1e-30, 0]);
      const around = codes.flatMap((x) => [-1, 0, 1].map((steps) => nextFloat32(x, steps)));
      const hard = [...around, ...around.map((x) => -x)].filter(Number.isFinite);
      const spec: DecodeSpec = { kvLen: 1, heads: [10, 10], headDim: 16, outDtype };
      const values = Float32Array.from({ length: 160 }, (_, i) => hard[i % hard.length]);
      const { out } = await runDecode(
        device,
        makeInputs(spec, { q: new Float32Array(160), k: new Float32Array(160), v: values }),
      );
      out.forEach((got, i) => {
        // A GPU may lose a subnormal float32, with its sign.
        if (Math.abs(values[i]) < 2 ** -126 && got === 0) return;
        assert.equal(got, roundTo(values[i], outDtype), `${values[i]}`);
      });
    },
  );
}

onEachBackend(
  "decode: infinity and NaN in an FP8 result: the largest value, and NaN",
  async (device) => {
    for (const outDtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
      const spec: DecodeSpec = { kvLen: 1, heads: [1, 1], headDim: 8, outDtype };
      const v = Float32Array.of(Infinity, -Infinity, NaN, 1, Infinity, NaN, -1, 0);
      const values = { q: new Float32Array(8), k: new Float32Array(8), v };
      const { out } = await runDecode(device, makeInputs(spec, values));
      const most = outDtype === "float8_e4m3fn" ? 448 : 57344;
      assert.deepEqual([...out], [most, -most, NaN, 1, most, NaN, -1, 0], outDtype);
    }
  },
);

onEachBackend("decode: every FP8 code counts as its value in q", async (device) => {
  for (const qDtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    // 32 heads of 8 dims hold the 256 codes. The values are large, so the scale is small.
    const spec: DecodeSpec = { kvLen: 9, heads: [32, 32], headDim: 8, qDtype, outDtype: "float32" };
    const inputs = makeInputs({ ...spec, smScale: qDtype === "float8_e4m3fn" ? 0.01 : 1e-4 });
    for (let code = 0; code < 256; code++) {
      const isFinite = qDtype === "float8_e4m3fn" ? (code & 0x7f) < 0x7f : (code & 0x7f) < 0x7c;
      inputs.q.bytes[code] = isFinite ? code : 0;
    }
    inputs.q.bytes.forEach((code, i) => inputs.q.values[i] = decode(code, qDtype));
    await checkDecode(device, qDtype, inputs);
  }
});
