/** Conversion on the device: bit by bit what the WASM encoder and the tests' own formats give. */

import assert from "node:assert/strict";
import { dequantize, type Device, type DType, encodeFp8, quantize } from "@kvasir/attention";
import { bytesOf } from "../support/append.ts";
import { onEachBackend } from "../support/device.ts";
import { decode, isFp8, type SmallDType } from "../support/formats.ts";
import { FP8_VECTORS } from "../support/fp8_vectors.ts";
import { fromCodes, store } from "../support/storage.ts";
import { nextFloat32, normals, randomBits } from "../support/values.ts";

const DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const;
const SMALL = DTYPES.slice(1) as SmallDType[];
const FP8 = ["float8_e4m3fn", "float8_e5m2"] as const;
/** GPUs may take a float32 below it for 0. */
const LEAST_NORMAL = 2 ** -126;

/** The bytes of a tensor in another dtype. */
async function quantized(
  device: Device,
  { dtype, bytes }: { readonly dtype: DType; readonly bytes: Uint8Array },
  to: DType,
  scale?: number,
): Promise<Uint8Array<ArrayBuffer>> {
  using tensor = device.tensorFromBytes(bytes, [bytes.length / bytesOf(dtype)], dtype);
  using result = await quantize(tensor, to, { scale });
  assert.deepEqual([result.shape, result.dtype], [tensor.shape, to]);
  return await result.readBytes();
}

/** The elements as unsigned integers. */
function codesOf(bytes: Uint8Array<ArrayBuffer>, dtype: DType) {
  if (dtype === "float32") return new Uint32Array(bytes.buffer);
  return isFp8(dtype) ? bytes : new Uint16Array(bytes.buffer);
}

/** Fails at the first element that differs; NaN of 16 and 32 bits need only be NaN. */
function assertCodes(
  label: string,
  got: Uint8Array<ArrayBuffer>,
  expected: Uint8Array<ArrayBuffer>,
  dtype: DType,
  inputs: ArrayLike<number>,
) {
  const [a, b] = [codesOf(got, dtype), codesOf(expected, dtype)];
  assert.equal(a.length, b.length, label);
  const isNan = (code: number) =>
    dtype === "float32" ? (code & 0x7fffffff) > 0x7f800000 : Number.isNaN(decode(code, dtype));
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    if (!isFp8(dtype) && isNan(a[i]) && isNan(b[i])) continue;
    assert.fail(`${label}: ${inputs[i]} (${i}) gave 0x${a[i].toString(16)}, not ${b[i]}`);
  }
}

const bytesOfArray = (x: Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>) =>
  new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
const asBytes = (bytes: Uint8Array) => bytes as Uint8Array<ArrayBuffer>;

onEachBackend("all 65,536 halves become FP8 as the WASM encoder has it", async (device) => {
  const halves = Uint16Array.from({ length: 65536 }, (_, code) => code);
  const source = fromCodes(halves, "float16");
  for (const dtype of FP8) {
    const got = await quantized(device, source, dtype);
    const encoder = encodeFp8(halves, dtype, { inputDtype: "float16" });
    assertCodes(`${dtype}, WASM`, got, encoder, dtype, source.values);
    const { bytes } = store(source.values, dtype);
    assertCodes(`${dtype}, definition`, got, asBytes(bytes), dtype, source.values);
  }
});

/** FP8's numbers, midpoints and the floats beside both, and what lies beyond them. */
function hardFloats(dtype: typeof FP8[number]): Float32Array<ArrayBuffer> {
  const numbers: number[] = [];
  for (let code = 0; code < 128; code++) {
    const value = decode(code, dtype);
    if (Number.isFinite(value)) numbers.push(value);
  }
  const hard = [Infinity, NaN, 1e30, 3.4e38, LEAST_NORMAL];
  numbers.forEach((number, i) => {
    // Past the largest, the midpoint at which overflow begins.
    const next = numbers[i + 1] ?? 2 * number - numbers[i - 1];
    for (const x of [number, (number + next) / 2]) {
      hard.push(x, nextFloat32(x), nextFloat32(x, -1));
    }
  });
  hard.push(...FP8_VECTORS.map(({ input }) => input));
  // Below the least normal number, a GPU has two answers.
  const kept = hard.filter((x) => x === 0 || !(Math.abs(x) < LEAST_NORMAL));
  return Float32Array.from(kept.flatMap((x) => [x, -x]));
}

onEachBackend("FP8's midpoints and the floats beside them are rounded once", async (device) => {
  for (const dtype of FP8) {
    const values = hardFloats(dtype);
    assert.ok(values.length > 1300);
    const source = { dtype: "float32" as const, bytes: bytesOfArray(values) };
    const got = await quantized(device, source, dtype);
    assertCodes(`${dtype}, WASM`, got, encodeFp8(values, dtype), dtype, values);
    assertCodes(dtype, got, asBytes(store(values, dtype).bytes), dtype, values);
    // Powers of two move every value, and no digit.
    for (const scale of [2 ** -20, 2 ** 20]) {
      const moved = values.map((x) => x * scale);
      const scaled = { dtype: "float32" as const, bytes: bytesOfArray(moved) };
      const isKept = moved.every((x, i) => x / scale === values[i] || Number.isNaN(x));
      const expected = isKept ? values : moved.map((x) => x / scale);
      const codes = await quantized(device, scaled, dtype, scale);
      assertCodes(`${dtype}, scale ${scale}`, codes, encodeFp8(expected, dtype), dtype, expected);
    }
  }
});

onEachBackend("floats of random bits become every dtype", async (device) => {
  const values = randomBits(60_000, 7).filter((x) => x === 0 || !(Math.abs(x) < LEAST_NORMAL));
  const source = { dtype: "float32" as const, bytes: bytesOfArray(values) };
  for (const dtype of SMALL) {
    // Of bfloat16, subnormals are not asked for either: they come from below the least normal.
    const got = await quantized(device, source, dtype);
    assertCodes(dtype, got, asBytes(store(values, dtype).bytes), dtype, values);
  }
});

onEachBackend("every code of 16 bits and less becomes every dtype", async (device) => {
  for (const from of SMALL) {
    const codes = isFp8(from)
      ? Uint8Array.from({ length: 256 }, (_, code) => code)
      : Uint16Array.from({ length: 65536 }, (_, code) => code);
    const source = fromCodes(codes, from);
    for (const to of DTYPES) {
      const got = await quantized(device, source, to);
      if (to === from) assert.deepEqual(got, source.bytes, `${from} to itself`);
      else {
        assertCodes(
          `${from} to ${to}`,
          got,
          asBytes(store(source.values, to).bytes),
          to,
          source.values,
        );
      }
    }
  }
});

onEachBackend("a tensor in its own dtype is copied, every bit of it", async (device) => {
  const bytes = new Uint8Array(randomBits(5000, 9).buffer);
  for (const dtype of DTYPES) {
    assert.deepEqual(await quantized(device, { dtype, bytes }, dtype), bytes, dtype);
  }
});

onEachBackend(
  "values are multiplied by 1 / scale, and by scale on the way back",
  async (device) => {
    const values = normals(3000, 4);
    for (const from of DTYPES) {
      const source = store(values, from);
      using tensor = device.tensorFromBytes(source.bytes, [3, 1000], from);
      for (const scale of [0.37, 3, 1e-3, 117]) {
        const inverse = Math.fround(1 / scale);
        for (const to of DTYPES) {
          using result = await quantize(tensor, to, { scale });
          const expected = store(source.values.map((x) => Math.fround(x * inverse)), to);
          const label = `${from} to ${to}, ${scale}`;
          assertCodes(label, await result.readBytes(), asBytes(expected.bytes), to, source.values);
          if (isFp8(to)) continue;
          using back = await dequantize(tensor, to, { scale });
          const factor = Math.fround(scale);
          const undone = store(source.values.map((x) => Math.fround(x * factor)), to);
          assertCodes(label, await back.readBytes(), asBytes(undone.bytes), to, source.values);
        }
      }
    }
  },
);

onEachBackend("long tensors are multiplied to their end", async (device) => {
  for (const [from, to] of [["float32", "float8_e4m3fn"], ["bfloat16", "float16"]] as const) {
    const source = store(normals(80_001, 6), from);
    const expected = asBytes(store(source.values.map((x) => x * 4), to).bytes);
    const got = await quantized(device, source, to, 0.25);
    assertCodes(`${from} to ${to}`, got, expected, to, source.values);
  }
});

onEachBackend("dequantized codes quantize to themselves", async (device) => {
  for (const dtype of FP8) {
    const codes = Uint8Array.from({ length: 256 }, (_, code) => code)
      .filter((code) => Number.isFinite(decode(code, dtype)));
    using tensor = device.tensorFromBytes(codes, [codes.length], dtype);
    for (const wide of ["float32", "float16", "bfloat16"] as const) {
      // Exact in all three, since the scale is a power of two.
      using values = await dequantize(tensor, wide, { scale: 2 ** 3 });
      using again = await quantize(values, dtype, { scale: 2 ** 3 });
      const largest = dtype === "float8_e5m2" && wide === "float16";
      const got = await again.readBytes();
      // 57344 · 8 is beyond float16.
      const isKept = (_: number, i: number) =>
        !largest || Math.abs(decode(codes[i], dtype)) * 8 <= 65504;
      assert.deepEqual(got.filter(isKept), codes.filter(isKept), `${dtype}, ${wide}`);
    }
  }
});

onEachBackend("tensors of any number of elements", async (device) => {
  const sizes = Array.from({ length: 34 }, (_, i) => i);
  for (const [from, to] of [["float32", "float8_e4m3fn"], ["float8_e5m2", "float16"]] as const) {
    for (const size of [...sizes, 255, 256, 257, 1023, 4099, 8191]) {
      const source = store(normals(size, size + 1), from);
      using tensor = device.tensorFromBytes(source.bytes, [size], from);
      using result = await quantize(tensor, to);
      const expected = asBytes(store(source.values, to).bytes);
      assertCodes(`${size}`, await result.readBytes(), expected, to, source.values);
    }
  }
});

onEachBackend("tensors that fill a GPU, with several pieces a lane", async (device) => {
  const count = (1 << 23) + 5;
  const bytes = Uint8Array.from({ length: count }, (_, i) => Math.imul(i, 0x9e3779b9) >>> 24);
  using tensor = device.tensorFromBytes(bytes, [count], "float8_e5m2");
  using result = await quantize(tensor, "float16");
  const halves = new Uint16Array((await result.readBytes()).buffer);
  // A code is the high byte of a half.
  const wrong = halves.findIndex((half, i) =>
    half !== bytes[i] << 8 && !Number.isNaN(decode(bytes[i], "float8_e5m2"))
  );
  assert.equal(wrong, -1);
});
