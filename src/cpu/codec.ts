/**
 * The codec on the host: numbers to stored bytes and back, through the WASM module.
 *
 * Slices go through two small blocks, which stay in the processor's cache; so the cost beyond the
 * conversion is one copy in and one out.
 *
 * @module
 */

import { bytesPerElement, type DType } from "../dtype.ts";
import { WASM_DTYPE, wasmElementBytes, WasmInstance } from "./wasm_module.ts";

/** Values of one trip through the module: 256 KiB of float32. */
const CHUNK = 1 << 16;

interface Codec {
  readonly instance: WasmInstance;
  readonly source: number;
  readonly target: number;
}

let shared: Codec | undefined;

function codec(): Codec {
  if (shared) return shared;
  const instance = new WasmInstance();
  shared = {
    instance,
    source: instance.allocate(CHUNK * 8, "the codec's input"),
    target: instance.allocate(CHUNK * 8, "the codec's output"),
  };
  return shared;
}

/** A dtype that the codec reads, and how JavaScript holds it. */
type SourceDType = DType | "float64";

/**
 * Encodes numbers to `dtype` and hands the bytes to `write`, a chunk at a time; the bytes are only
 * valid during the call. Rounds once to nearest even: from float32 where `values` is a
 * `Float32Array`, else from the JavaScript number.
 */
export function encodeValues(
  values: ArrayLike<number>,
  dtype: DType,
  { saturate }: { saturate: boolean },
  write: (byteOffset: number, bytes: Uint8Array) => void,
): void {
  if (values instanceof Float32Array) {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    if (dtype === "float32") return write(0, bytes);
    return convertBytes(bytes, "float32", dtype, saturate, write);
  }
  const elementBytes = bytesPerElement(dtype);
  const numbers = new Float64Array(Math.min(CHUNK, values.length));
  for (let start = 0; start < values.length; start += CHUNK) {
    const count = Math.min(CHUNK, values.length - start);
    for (let i = 0; i < count; i++) numbers[i] = values[start + i];
    const bytes = new Uint8Array(numbers.buffer, 0, count * 8);
    convertBytes(bytes, "float64", dtype, saturate, (offset, chunk) => {
      write(start * elementBytes + offset, chunk);
    });
  }
}

/** Converts stored bytes of one dtype to another, a chunk at a time; see {@linkcode encodeValues}. */
export function convertBytes(
  bytes: Uint8Array,
  from: SourceDType,
  to: DType,
  saturate: boolean,
  write: (byteOffset: number, bytes: Uint8Array) => void,
): void {
  const { instance, source, target } = codec();
  const fromBytes = wasmElementBytes(from);
  const toBytes = bytesPerElement(to);
  const count = bytes.byteLength / fromBytes;
  const input = instance.view(source, CHUNK * 8);
  const output = instance.view(target, CHUNK * 8);
  for (let start = 0; start < count; start += CHUNK) {
    const n = Math.min(CHUNK, count - start);
    input.set(bytes.subarray(start * fromBytes, (start + n) * fromBytes));
    const { convert } = instance.exports;
    instance.check(
      "convert",
      convert(source, 0, WASM_DTYPE[from], target, 0, WASM_DTYPE[to], n, saturate ? 1 : 0),
    );
    write(start * toBytes, output.subarray(0, n * toBytes));
  }
}

/** Stored bytes as float32 values, exactly. */
export function decodeToFloat32(bytes: Uint8Array, dtype: DType): Float32Array<ArrayBuffer> {
  const values = new Float32Array(bytes.byteLength / bytesPerElement(dtype));
  const target = new Uint8Array(values.buffer);
  if (dtype === "float32") target.set(bytes);
  else convertBytes(bytes, dtype, "float32", false, (offset, chunk) => target.set(chunk, offset));
  return values;
}
