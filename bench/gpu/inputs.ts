/**
 * The values that kernels are timed on: one block of pseudo-random values, over and over, so that the
 * device can make a cache of gigabytes from it and the host any part of it again.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { Backend, Storage } from "../../src/backend.ts";
import { decodeToFloat32, encodeValues } from "../../src/cpu/codec.ts";
import { bytesPerElement } from "../../src/dtype.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { GpuStorage } from "../../src/webgpu/buffers.ts";

/** Values of the block. */
export const BLOCK_VALUES: number = 1 << 20;
/** Copies of one submission: memory of gigabytes takes thousands. */
const COPIES = 256;

const blocks = new Map<DType, Uint8Array<ArrayBuffer>>();

/** Values from -2 to 2. */
function block(dtype: DType): Uint8Array<ArrayBuffer> {
  let bytes = blocks.get(dtype);
  if (!bytes) {
    let state = 1;
    const uniform = () => (state = Math.imul(state, 1664525) + 1013904223 | 0) / 2 ** 31;
    const values = Float32Array.from({ length: BLOCK_VALUES }, () => 2 * uniform());
    const made = new Uint8Array(BLOCK_VALUES * bytesPerElement(dtype));
    encodeValues(values, dtype, { saturate: true }, (offset, chunk) => made.set(chunk, offset));
    blocks.set(dtype, bytes = made);
  }
  return bytes;
}

/** `count` bytes from `at` in a source, which go to `filled` in a target. */
interface Piece {
  readonly at: number;
  readonly filled: number;
  readonly count: number;
}

/** The pieces of the block that follow each other from value `from` on. */
function* pieces(elements: number, dtype: DType, from: number): Generator<Piece> {
  const size = BLOCK_VALUES * bytesPerElement(dtype);
  const length = elements * bytesPerElement(dtype);
  let at = from * bytesPerElement(dtype) % size;
  for (let filled = 0; filled < length; at = 0) {
    const count = Math.min(size - at, length - filled);
    yield { at, filled, count };
    filled += count;
  }
}

/** Memory on a host's backend that begins with value `from` of the endless repetition. */
export function fillOnHost(
  backend: Backend,
  elements: number,
  dtype: DType,
  from: number,
): Storage {
  const storage = backend.allocate(elements * bytesPerElement(dtype), "bench");
  for (const { at, filled, count } of pieces(elements, dtype, from)) {
    backend.write(storage, filled, block(dtype).subarray(at, at + count));
  }
  return storage;
}

/** The same values as numbers. */
export function valuesOf(elements: number, dtype: DType, from: number): Float32Array {
  const bytes = new Uint8Array(elements * bytesPerElement(dtype));
  for (const { at, filled, count } of pieces(elements, dtype, from)) {
    bytes.set(block(dtype).subarray(at, at + count), filled);
  }
  return decodeToFloat32(bytes, dtype);
}

/** The same on the GPU, of which only the block crosses the bus. Throws where memory is short. */
export async function fillOnGpu(
  backend: WebGpuBackend,
  elements: number,
  dtype: DType,
  from: number,
): Promise<GpuStorage> {
  const { device } = backend;
  const source = backend.allocate(block(dtype).length, "bench block");
  const storage = backend.allocate(elements * bytesPerElement(dtype), "bench");
  try {
    await Promise.all([source.ready, storage.ready]);
    backend.write(source, 0, block(dtype));
    copyPieces(device, source.buffer, storage.buffer, [...pieces(elements, dtype, from)]);
    return storage;
  } catch (error) {
    storage.release();
    throw error;
  } finally {
    // What is submitted keeps its memory until it has run.
    source.release();
  }
}

/** Fills the first `bytes` of `target` with the `size` bytes of `source`, over and over. */
export function repeatInto(
  device: GPUDevice,
  source: GPUBuffer,
  size: number,
  target: GPUBuffer,
  bytes: number,
): void {
  const all = Array.from({ length: Math.ceil(bytes / size) }, (_, i): Piece => ({
    at: 0,
    filled: i * size,
    count: Math.min(size, bytes - i * size),
  }));
  copyPieces(device, source, target, all);
}

function copyPieces(
  device: GPUDevice,
  source: GPUBuffer,
  target: GPUBuffer,
  all: readonly Piece[],
): void {
  for (let first = 0; first < all.length; first += COPIES) {
    const encoder = device.createCommandEncoder({ label: "fill" });
    for (const { at, filled, count } of all.slice(first, first + COPIES)) {
      encoder.copyBufferToBuffer(source, at, target, filled, count);
    }
    device.queue.submit([encoder.finish()]);
  }
}
