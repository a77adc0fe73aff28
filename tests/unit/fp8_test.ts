/** encodeFp8() and decodeFp8(): every code, every half, and the hard floats. */

import assert from "node:assert/strict";
import { decodeFp8, encodeFp8, type Fp8DType } from "@kvasir/attention";
import { decode, encode } from "../support/formats.ts";
import { FP8_VECTORS } from "../support/fp8_vectors.ts";
import { nextFloat32, randomBits } from "../support/values.ts";

const FORMATS: readonly Fp8DType[] = ["float8_e4m3fn", "float8_e5m2"];
const MODES = [true, false];
const ALL_CODES = Uint8Array.from({ length: 256 }, (_, code) => code);
const ALL_HALVES = Uint16Array.from({ length: 65536 }, (_, code) => code);

/** Fails at the first value whose code is not the slow encoder's. */
function assertCodes(values: Float32Array, codes: Uint8Array, dtype: Fp8DType, saturate: boolean) {
  assert.equal(codes.length, values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) {
    const mode = { saturate, nanIsNegative: bits[i] >>> 31 === 1 };
    const expected = encode(values[i], dtype, mode);
    if (codes[i] !== expected) {
      const input = `${values[i]} (0x${bits[i].toString(16)})`;
      assert.fail(`${dtype}, saturate ${saturate}: ${input} gave ${codes[i]}, not ${expected}`);
    }
  }
}

/** Runs a check for both formats and both modes. */
function inAllModes(check: (dtype: Fp8DType, saturate: boolean) => void) {
  for (const dtype of FORMATS) for (const saturate of MODES) check(dtype, saturate);
}

Deno.test("encodeFp8() gives the golden codes", () => {
  const inputs = Float32Array.from(FP8_VECTORS, ({ input }) => input);
  const negated = inputs.map((x) => -x);
  inAllModes((dtype, saturate) => {
    const format = dtype === "float8_e4m3fn" ? "e4m3" : "e5m2";
    const expected = FP8_VECTORS.map((v) => v[format][saturate ? "saturating" : "not"]);
    const codes = encodeFp8(inputs, dtype, { saturate });
    assert.deepEqual([...codes], expected);
    const negative = encodeFp8(negated, dtype, { saturate });
    assert.deepEqual([...negative], expected.map((code) => code | 0x80));
  });
});

Deno.test("encodeFp8() saturates by default", () => {
  assert.deepEqual([...encodeFp8([1e6, -Infinity], "float8_e4m3fn")], [0x7e, 0xfe]);
  assert.deepEqual([...encodeFp8([1e6, -Infinity], "float8_e5m2")], [0x7b, 0xfb]);
});

Deno.test("decodeFp8() is right for all 256 codes, to float32 and to float16", () => {
  for (const dtype of FORMATS) {
    const floats = decodeFp8(ALL_CODES, dtype);
    const halves = decodeFp8(ALL_CODES, dtype, { outDtype: "float16" });
    for (const code of ALL_CODES) {
      const expected = decode(code, dtype);
      assert.ok(Object.is(floats[code], expected), `${dtype} ${code}: ${floats[code]}`);
      const half = decode(halves[code], "float16");
      assert.ok(Object.is(half, expected), `${dtype} ${code} to half: ${half}`);
    }
  }
});

Deno.test("encodeFp8() gives every decoded code back", () => {
  inAllModes((dtype, saturate) => {
    const codes = encodeFp8(decodeFp8(ALL_CODES, dtype), dtype, { saturate });
    for (const code of ALL_CODES) {
      const value = decode(code, dtype);
      if (Number.isFinite(value)) assert.equal(codes[code], code);
    }
  });
});

Deno.test("encodeFp8() is right for all 65,536 halves", () => {
  const values = Float32Array.from(ALL_HALVES, (half) => decode(half, "float16"));
  // Decoding a NaN loses its sign, which the non-saturating mode keeps.
  new Uint32Array(values.buffer).forEach((_, i, bits) => {
    if (Number.isNaN(values[i])) bits[i] = i & 0x8000 ? 0xffc00000 : 0x7fc00000;
  });
  inAllModes((dtype, saturate) => {
    const codes = encodeFp8(ALL_HALVES, dtype, { saturate, inputDtype: "float16" });
    assertCodes(values, codes, dtype, saturate);
    assertCodes(values, encodeFp8(values, dtype, { saturate }), dtype, saturate);
  });
});

Deno.test("encodeFp8() is right around every midpoint and every code", () => {
  for (const dtype of FORMATS) {
    const finite = [...ALL_CODES.subarray(0, 128)].map((code) => decode(code, dtype))
      .filter(Number.isFinite);
    const top = finite[finite.length - 1];
    const overflow = top + (top - finite[finite.length - 2]);
    const points = [...finite, overflow].flatMap((x, i, all) => i ? [x, (all[i - 1] + x) / 2] : x);
    const around = points.flatMap((x) => [-2, -1, 0, 1, 2].map((steps) => nextFloat32(x, steps)));
    const values = Float32Array.from([...around, ...around.map((x) => -x)]);
    for (const saturate of MODES) {
      assertCodes(values, encodeFp8(values, dtype, { saturate }), dtype, saturate);
    }
  }
});

Deno.test("encodeFp8() is right at every exponent of float32", () => {
  const powers = Array.from({ length: 149 + 128 }, (_, i) => 2 ** (i - 149));
  const around = powers.flatMap((x) => [-1, 0, 1].map((steps) => nextFloat32(x, steps)));
  const values = Float32Array.from([...around, ...around.map((x) => -x)]);
  inAllModes((dtype, saturate) => {
    assertCodes(values, encodeFp8(values, dtype, { saturate }), dtype, saturate);
  });
});

Deno.test("encodeFp8() rounds a float32 once, not by way of float16", () => {
  const value = new Float32Array(Uint32Array.of(0x43d7ffff).buffer);
  assert.deepEqual([...encodeFp8(value, "float8_e4m3fn")], [0x7d]);
  const half = new Uint16Array(Float16Array.from(value).buffer);
  assert.deepEqual([...encodeFp8(half, "float8_e4m3fn", { inputDtype: "float16" })], [0x7e]);
});

Deno.test("encodeFp8() rounds a JavaScript number once, not by way of float32", () => {
  const value = 1.0625 + 2 ** -40;
  assert.deepEqual([...encodeFp8([value], "float8_e4m3fn")], [0x39]);
  assert.deepEqual([...encodeFp8(Float64Array.of(value), "float8_e4m3fn")], [0x39]);
  assert.deepEqual([...encodeFp8(Float32Array.of(value), "float8_e4m3fn")], [0x38]);
});

Deno.test("encodeFp8() is right for doubles next to every midpoint", () => {
  for (const dtype of FORMATS) {
    for (let code = 0; code < 0x7b; code++) {
      const middle = (decode(code, dtype) + decode(code + 1, dtype)) / 2;
      for (const value of [middle * (1 - 2 ** -50), middle, middle * (1 + 2 ** -50)]) {
        const expected = encode(value, dtype, { saturate: true });
        assert.deepEqual([...encodeFp8([value, -value], dtype)], [expected, expected | 0x80]);
      }
    }
    const extremes = [Number.MIN_VALUE, 2 ** -1022, 1e-60, 1e60, Number.MAX_VALUE];
    const expected = extremes.map((x) => encode(x, dtype, { saturate: true }));
    assert.deepEqual([...encodeFp8(extremes, dtype)], expected);
  }
});

Deno.test("encodeFp8() and decodeFp8() take any length and any alignment", () => {
  // A SIMD loop has tails of every length; slices of 65,536 values go through the module at once.
  const values = randomBits(65536 + 68, 5);
  for (const dtype of FORMATS) {
    const codes = encodeFp8(values, dtype);
    assertCodes(values, codes, dtype, true);
    for (const base of [0, 65536]) {
      for (let tail = 0; tail <= 67; tail++) {
        const part = encodeFp8(values.subarray(1, 1 + base + tail), dtype);
        assert.deepEqual(part, codes.slice(1, 1 + base + tail), `${base} + ${tail} values`);
      }
    }
    const decoded = decodeFp8(codes, dtype);
    assert.ok(codes.every((code, i) => Object.is(decode(code, dtype), decoded[i])));
    for (let tail = 0; tail <= 67; tail++) {
      assert.deepEqual(decodeFp8(codes.subarray(3, 3 + tail), dtype), decoded.slice(3, 3 + tail));
    }
  }
});

Deno.test("encodeFp8() leaves its input alone, and answers with memory of its own", () => {
  const values = Float32Array.of(1, 2, 3);
  const first = encodeFp8(values, "float8_e5m2");
  const kept = first.slice();
  encodeFp8([7, 8, 9], "float8_e5m2");
  assert.deepEqual(first, kept);
  assert.deepEqual([...values], [1, 2, 3]);
});
