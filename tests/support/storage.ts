/**
 * Values as a tensor stores them: bytes for `tensorFromBytes`, and the decoded values beside them
 * for the oracle, both made by the tests' own formats.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import { decode, encode, isFp8, type SmallDType } from "./formats.ts";

/** One tensor's storage, and the numbers that it stands for. */
export interface Stored {
  readonly dtype: DType;
  readonly bytes: Uint8Array;
  readonly values: Float32Array;
}

/** Rounds `values` to `dtype` and lays them out little-endian. */
export function store(values: ArrayLike<number>, dtype: DType): Stored {
  if (dtype === "float32") {
    const kept = Float32Array.from(values);
    return { dtype, bytes: new Uint8Array(kept.buffer), values: kept };
  }
  const codes = isFp8(dtype) ? new Uint8Array(values.length) : new Uint16Array(values.length);
  const mode = { saturate: isFp8(dtype) };
  for (let i = 0; i < codes.length; i++) codes[i] = encode(values[i], dtype, mode);
  return fromCodes(codes, dtype);
}

/** A NaN of each dtype, for the slots that nothing may read. */
const NAN_CODES: Readonly<Record<DType, number>> = {
  float32: 0x7fc00000,
  float16: 0x7e00,
  bfloat16: 0x7fc0,
  float8_e4m3fn: 0x7f,
  float8_e5m2: 0x7f,
};

/** Makes elements `start` to `end` NaN. */
export function fillWithNan(stored: Stored, start: number, end: number): void {
  elementsOf(stored).fill(NAN_CODES[stored.dtype], start, end);
  stored.values.fill(NaN, start, end);
}

/** The stored elements as unsigned integers. */
function elementsOf({ bytes, values }: Stored): Uint8Array | Uint16Array | Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  const size = byteLength / values.length;
  if (size === 1) return bytes;
  return size === 2
    ? new Uint16Array(buffer, byteOffset, byteLength / 2)
    : new Uint32Array(buffer, byteOffset, byteLength / 4);
}

/** What `codes`, of a dtype of at most 16 bits, hold. */
export function fromCodes(codes: Uint8Array | Uint16Array, dtype: SmallDType): Stored {
  const values = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) values[i] = decode(codes[i], dtype);
  return { dtype, bytes: new Uint8Array(codes.buffer, codes.byteOffset, codes.byteLength), values };
}
