/** The tests' own formats, which judge the library's: against vectors and against the runtime. */

import assert from "node:assert/strict";
import { decode, encode, roundTo } from "../support/formats.ts";
import { FP8_VECTORS } from "../support/fp8_vectors.ts";
import { nextFloat32, normals, randomBits } from "../support/values.ts";

Deno.test("formats: encode() gives the golden FP8 codes", () => {
  for (const { input, e4m3, e5m2 } of FP8_VECTORS) {
    for (const saturate of [true, false]) {
      const mode = saturate ? "saturating" : "not";
      for (const [sign, bit] of [[1, 0], [-1, 0x80]]) {
        const label = `${sign * input}, ${mode}`;
        assert.equal(encode(sign * input, "float8_e4m3fn", { saturate }), e4m3[mode] | bit, label);
        assert.equal(encode(sign * input, "float8_e5m2", { saturate }), e5m2[mode] | bit, label);
      }
    }
  }
});

Deno.test("formats: NaN has a sign only where nothing saturates", () => {
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    assert.equal(encode(NaN, dtype, { saturate: true, nanIsNegative: true }), 0x7f);
    assert.equal(encode(NaN, dtype, { saturate: false, nanIsNegative: true }), 0xff);
    assert.equal(encode(NaN, dtype, { saturate: false }), 0x7f);
  }
});

Deno.test("formats: every float16 decodes as the runtime decodes it", () => {
  const codes = Uint16Array.from({ length: 65536 }, (_, code) => code);
  const values = new Float16Array(codes.buffer);
  codes.forEach((code) => assert.ok(Object.is(decode(code, "float16"), values[code]), `${code}`));
});

Deno.test("formats: every bfloat16 is the upper half of a float32", () => {
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  for (let code = 0; code < 65536; code++) {
    bits[0] = code << 16;
    assert.ok(Object.is(decode(code, "bfloat16"), value[0]), `${code}`);
  }
});

Deno.test("formats: every code of FP8 encodes as itself", () => {
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    for (let code = 0; code < 256; code++) {
      const value = decode(code, dtype);
      if (!Number.isNaN(value)) assert.equal(encode(value, dtype, { saturate: false }), code);
    }
  }
});

Deno.test("formats: roundTo() agrees with the runtime in float16", () => {
  for (
    const value of [...normals(1000, 1), ...randomBits(1000, 2), 65504, 65519, 65520, 2 ** -25]
  ) {
    assert.ok(Object.is(roundTo(value, "float16"), Math.f16round(value)), `${value}`);
  }
});

Deno.test("values: nextFloat32() steps through the floats", () => {
  assert.equal(nextFloat32(1), 1 + 2 ** -23);
  assert.equal(nextFloat32(1, -1), 1 - 2 ** -24);
  assert.equal(nextFloat32(-1), -1 + 2 ** -24);
  assert.equal(nextFloat32(0), 2 ** -149);
  assert.equal(nextFloat32(0, -1), -(2 ** -149));
});
