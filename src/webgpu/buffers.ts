/**
 * Memory on the GPU: allocation, borrowing and upload.
 *
 * @module
 */

import type { CopiedPart, Storage } from "../backend.ts";
import { LimitError, OptionError } from "../errors.ts";
import { show } from "../shape.ts";
import { inErrorScopes } from "./gpu_errors.ts";
import { USAGE } from "./flags.ts";

/** Bytes to which allocations are rounded: kernels read pieces of 16. */
const GRANULE = 16;
/** Bytes of one upload; uploads are staged in host memory until they are submitted. */
const UPLOAD_SLICE = 1 << 25;

/** A tensor's memory on the GPU. */
export class GpuStorage implements Storage {
  #ready: Promise<void> | null;
  #name = "";

  /** @param ready Null for memory that is there. */
  constructor(
    readonly buffer: GPUBuffer,
    readonly byteOffset: number,
    readonly byteLength: number,
    ready: Promise<void> | null,
    readonly isOwned: boolean,
  ) {
    this.#ready = ready;
    // Whoever uses the storage hears of a failure; nobody may have to.
    ready?.then(() => this.#ready = null, () => {});
  }

  get ready(): Promise<void> | null {
    return this.#ready;
  }

  /** The same for the same bytes of the same buffer only, whoever wraps them. */
  get name(): string {
    return this.#name ||= `${numberOf(this.buffer)},${this.byteOffset},${this.byteLength};`;
  }

  /** What a bind group takes. Zero-sized bindings are not allowed, so it is a whole granule. */
  get binding(): GPUBufferBinding {
    return { buffer: this.buffer, offset: this.byteOffset, size: roundUp(this.byteLength) };
  }

  /** A part of it for a bind group, or all of it. Its offset must be aligned as bindings must. */
  window(part: { readonly offset: number; readonly size: number } | undefined): GPUBufferBinding {
    if (!part) return this.binding;
    return { buffer: this.buffer, offset: this.byteOffset + part.offset, size: roundUp(part.size) };
  }

  release(): void {
    if (this.isOwned) this.buffer.destroy();
  }
}

const numbers = new WeakMap<GPUBuffer, number>();
let buffers = 0;

/** A number of its own for each buffer. */
function numberOf(buffer: GPUBuffer): number {
  let number = numbers.get(buffer);
  if (number === undefined) numbers.set(buffer, number = buffers++);
  return number;
}

function roundUp(byteLength: number): number {
  return Math.max(GRANULE, Math.ceil(byteLength / GRANULE) * GRANULE);
}

/** Allocates zeroed memory for a tensor. Throws `LimitError`; `ready` may reject later. */
export function allocateStorage(device: GPUDevice, byteLength: number, label: string): GpuStorage {
  const size = roundUp(byteLength);
  const { maxBufferSize } = device.limits;
  if (size > maxBufferSize) {
    throw new LimitError(label, {
      got: `${size} bytes`,
      expected: `at most ${maxBufferSize}, this device's maxBufferSize`,
      hint:
        "Use a smaller batch, a shorter cache or a smaller dtype; a GPUDevice of your own must " +
        "be requested with the adapter's limits, since WebGPU's default is 256 MiB a buffer.",
    });
  }
  const { result: buffer, done } = inErrorScopes(
    device,
    label,
    () =>
      device.createBuffer({ label, size, usage: USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST }),
  );
  return new GpuStorage(buffer, 0, byteLength, done, true);
}

/** Wraps a caller's buffer. Throws `OptionError` where kernels could not use it. */
export function borrowStorage(
  device: GPUDevice,
  buffer: GPUBuffer,
  byteOffset: number,
  byteLength: number,
): GpuStorage {
  const refuse = (subject: string, got: string, expected: string, hint: string) =>
    new OptionError(subject, { got, expected, hint });
  if (typeof buffer?.size !== "number" || typeof buffer.usage !== "number") {
    throw refuse("buffer", show(buffer), "a GPUBuffer", "Make it with the device's createBuffer.");
  }
  if ((buffer.usage & USAGE.STORAGE) === 0) {
    const usage = `usage 0x${buffer.usage.toString(16)}`;
    throw refuse("buffer", usage, "usage STORAGE", "Add GPUBufferUsage.STORAGE when creating it.");
  }
  const alignment = device.limits.minStorageBufferOffsetAlignment;
  if (!Number.isSafeInteger(byteOffset) || byteOffset < 0 || byteOffset % alignment !== 0) {
    const expected = `a multiple of ${alignment}, this device's minStorageBufferOffsetAlignment`;
    throw refuse("byteOffset", show(byteOffset), expected, "Align the tensor within its buffer.");
  }
  if (byteOffset + roundUp(byteLength) > buffer.size) {
    const got = `${buffer.size} bytes from which ${roundUp(byteLength)} at ${byteOffset} are taken`;
    throw refuse("buffer", got, "a buffer that holds them", "Sizes are rounded up to 16 bytes.");
  }
  return new GpuStorage(buffer, byteOffset, byteLength, null, false);
}

/** Copies `bytes` to a tensor's memory, from `byteOffset` (a multiple of 4) on. */
export function upload(
  device: GPUDevice,
  storage: GpuStorage,
  byteOffset: number,
  bytes: Uint8Array,
): void {
  const target = storage.byteOffset + byteOffset;
  const whole = bytes.byteLength - bytes.byteLength % 4;
  for (let start = 0; start < whole; start += UPLOAD_SLICE) {
    const slice = bytes.subarray(start, Math.min(start + UPLOAD_SLICE, whole));
    device.queue.writeBuffer(storage.buffer, target + start, slice as Uint8Array<ArrayBuffer>);
    // An empty submission lets the staged bytes go.
    if (slice.byteLength === UPLOAD_SLICE) device.queue.submit([]);
  }
  if (whole < bytes.byteLength) {
    const tail = new Uint8Array(4);
    tail.set(bytes.subarray(whole));
    device.queue.writeBuffer(storage.buffer, target + whole, tail);
  }
}

/** A small buffer for one dispatch, with its contents. */
export function smallBuffer(
  device: GPUDevice,
  kind: "uniform" | "storage",
  label: string,
  words: Uint32Array<ArrayBuffer>,
): GPUBuffer {
  const usage = (kind === "uniform" ? USAGE.UNIFORM : USAGE.STORAGE) | USAGE.COPY_DST;
  const buffer = device.createBuffer({ label, size: roundUp(words.byteLength), usage });
  if (words.byteLength > 0) device.queue.writeBuffer(buffer, 0, words);
  return buffer;
}

/** Memory for one submission, which kernels write and read. */
export function scratchBuffer(device: GPUDevice, label: string, byteLength: number): GPUBuffer {
  return device.createBuffer({ label, size: roundUp(byteLength), usage: USAGE.STORAGE });
}

/** Copies a tensor's bytes to another tensor. */
export function copyStorage(device: GPUDevice, from: GpuStorage, to: GpuStorage): Promise<void> {
  const size = Math.ceil(from.byteLength / 4) * 4;
  return copyParts(device, from, to, [{ from: 0, to: 0, size }]);
}

/** Copies parts of a tensor's bytes to places of another tensor, which has another buffer. */
export function copyParts(
  device: GPUDevice,
  from: GpuStorage,
  to: GpuStorage,
  parts: readonly CopiedPart[],
): Promise<void> {
  return inErrorScopes(device, "copy", () => {
    const encoder = device.createCommandEncoder();
    for (const part of parts) {
      const [source, target] = [from.byteOffset + part.from, to.byteOffset + part.to];
      encoder.copyBufferToBuffer(from.buffer, source, to.buffer, target, part.size);
    }
    device.queue.submit([encoder.finish()]);
  }).done;
}
