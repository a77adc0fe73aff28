/**
 * All 2^32 floats through the FP8 encoder that ships, WASM SIMD and all: the second half of
 * `deno task fp8:proof`, after the crate's own test. Prints a line for each format and mode; exits
 * with 1 if a code is wrong.
 *
 * The judge is that of `wasm/tests/fp8_proof.rs` once more: positive floats are ordered as their bits
 * are, so each code owns an interval of integers, which ends at the bits of a midpoint.
 *
 * @module
 */

import { encodeFp8, type Fp8DType } from "@kvasir/attention";
import { decode } from "../tests/support/formats.ts";

/** Floats of one call. */
const CHUNK = 1 << 16;
const INFINITY = 0x7f800000;
/** The largest finite code, and the one that overflow gives where it does not saturate. */
const TOP = { float8_e4m3fn: [0x7e, 0x7f], float8_e5m2: [0x7b, 0x7c] } as const;

/** For each code up to that of overflow, the first bits of a positive float that round to it. */
function firstBits(dtype: Fp8DType): number[] {
  const [top, overflow] = TOP[dtype];
  const values = Array.from({ length: top + 1 }, (_, code) => decode(code, dtype));
  // Overflow begins half a step beyond the largest value.
  values.push(2 * values[top] - values[top - 1]);
  const first = [0];
  for (let code = 1; code <= overflow; code++) {
    const middle = Float32Array.of((values[code - 1] + values[code]) / 2);
    const [bits] = new Uint32Array(middle.buffer);
    first.push(code % 2 === 0 ? bits : bits + 1); // the tie goes to the even code
  }
  return first;
}

const FIRST_BITS = {
  float8_e4m3fn: firstBits("float8_e4m3fn"),
  float8_e5m2: firstBits("float8_e5m2"),
};

/** Writes the codes of the chunk of floats that begins with these bits. */
export function writeExpected(
  start: number,
  dtype: Fp8DType,
  saturate: boolean,
  codes: Uint8Array,
): void {
  const first = FIRST_BITS[dtype];
  const [top, overflow] = TOP[dtype];
  const sign = start >= 2 ** 31 ? 0x80 : 0;
  const magnitude = start % 2 ** 31;
  for (let code = 0; code <= overflow; code++) {
    const from = Math.max(0, first[code] - magnitude);
    const to = Math.min(CHUNK, (first[code + 1] ?? Infinity) - magnitude);
    if (from < to) codes.fill(sign | (saturate ? Math.min(code, top) : code), from, to);
  }
  const nan = Math.max(0, INFINITY + 1 - magnitude);
  if (nan < CHUNK) codes.fill(saturate ? 0x7f : sign | 0x7f, nan);
}

/** How many of the floats from `begin` to `end`, by their bits, get a wrong code. */
export function countWrong(
  dtype: Fp8DType,
  saturate: boolean,
  begin: number = 0,
  end: number = 2 ** 32,
): number {
  const bits = new Uint32Array(CHUNK);
  const values = new Float32Array(bits.buffer);
  const expected = new Uint8Array(CHUNK);
  const out = new Uint8Array(CHUNK);
  const [words, right] = [out, expected].map(({ buffer }) => new Uint32Array(buffer));
  let wrong = 0;
  for (let start = begin; start < end; start += CHUNK) {
    for (let i = 0; i < CHUNK; i++) bits[i] = start + i;
    writeExpected(start, dtype, saturate, expected);
    encodeFp8(values, dtype, { saturate, out });
    let differing = 0;
    for (let i = 0; i < words.length; i++) differing |= words[i] ^ right[i];
    if (differing !== 0) { for (let i = 0; i < CHUNK; i++) if (out[i] !== expected[i]) wrong++; }
  }
  return wrong;
}

if (import.meta.main) {
  let failed = false;
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    for (const saturate of [true, false]) {
      const wrong = countWrong(dtype, saturate);
      failed ||= wrong > 0;
      console.log(`WASM, ${dtype}, saturate ${saturate}: ${2 ** 32} floats, ${wrong} wrong`);
    }
  }
  if (failed) Deno.exit(1);
}
