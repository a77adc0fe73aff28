/**
 * Reading a tensor back, fast where a token loop waits for it.
 *
 * In Deno, `mapAsync` never resolves in less than 10 ms: it asks the GPU, which waits until the GPU is
 * done, and then sleeps. But after asking, the bytes are there: `getMappedRange` gives them, if the
 * buffer has been mapped before (on one that has not, Deno 2.9 panics). So staging buffers are kept
 * once they have been mapped in the ordinary way, and looked into at once; wherever that fails, the
 * promise is awaited. A buffer serves again when its promise has settled.
 *
 * The promise outlives the read by 10 ms, which Deno's test sanitizers call a leak. So it is done only
 * where it counts: after several reads that follow each other, as in a token loop.
 *
 * @module
 */

import { OptionError } from "../errors.ts";
import type { GpuStorage } from "./buffers.ts";
import { MAP_MODE_READ, USAGE } from "./flags.ts";
import { inErrorScopes, type LossGuard } from "./gpu_errors.ts";

/** Tensors beyond this are read through a buffer of their own: their copy costs more than the wait. */
const MOST_KEPT_BYTES = 1 << 20;
const LEAST_BYTES = 1 << 12;
/** Buffers that are kept; a loop of 1 ms a token has about 12 under way. */
const MOST_KEPT = 32;

/** From so many reads on, each within so many milliseconds of the last, reading is a loop. */
const LOOP_READS = 8;
const LOOP_GAP = 100;

/** The staging buffers of one device. */
export class Readback {
  readonly #device: GPUDevice;
  readonly #guard: LossGuard;
  readonly #canPeek: boolean;
  /** By size: buffers that have been mapped before and are not in use. */
  readonly #idle = new Map<number, GPUBuffer[]>();
  readonly #kept = new Set<GPUBuffer>();
  /** Promises of mappings that nobody waits for any more. */
  readonly #underWay = new Set<Promise<void>>();
  #readsInARow = 0;
  #lastRead = -Infinity;

  /** @param canPeek Whether a mapping may be looked into before its promise has settled. */
  constructor(device: GPUDevice, guard: LossGuard, canPeek: boolean = isDeno()) {
    this.#device = device;
    this.#guard = guard;
    this.#canPeek = canPeek;
  }

  /** A copy of a tensor's bytes. */
  async read(storage: GpuStorage): Promise<Uint8Array<ArrayBuffer>> {
    this.#guard.check();
    const size = Math.ceil(storage.byteLength / 4) * 4;
    if (size === 0) return new Uint8Array(0);
    if ((storage.buffer.usage & USAGE.COPY_SRC) === 0) {
      throw new OptionError("tensor", {
        got: `a borrowed buffer of usage 0x${storage.buffer.usage.toString(16)}`,
        expected: "usage COPY_SRC",
        hint: "Add GPUBufferUsage.COPY_SRC when creating it.",
      });
    }
    const capacity = Math.max(LEAST_BYTES, 2 ** Math.ceil(Math.log2(size)));
    const isKept = this.#isLoop() && this.#canPeek && capacity <= MOST_KEPT_BYTES;
    const staging = isKept ? this.#idle.get(capacity)?.pop() : undefined;
    return staging
      ? await this.#peek(staging, capacity, storage, size)
      : await this.#map(isKept ? capacity : size, storage, size, isKept);
  }

  /** Settles when no mapping is under way. */
  async settled(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** Frees all buffers. */
  destroy(): void {
    for (const buffer of this.#kept) buffer.destroy();
    this.#kept.clear();
    this.#idle.clear();
  }

  /** The ordinary way, with a new buffer. */
  async #map(
    capacity: number,
    storage: GpuStorage,
    size: number,
    keep: boolean,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { result: staging, done } = inErrorScopes(this.#device, "read", () => {
      const usage = USAGE.MAP_READ | USAGE.COPY_DST;
      const buffer = this.#device.createBuffer({ label: "readback", size: capacity, usage });
      this.#copy(storage, buffer, size);
      return buffer;
    });
    let isKept = false;
    try {
      await this.#guard.race(done);
      await this.#guard.race(staging.mapAsync(MAP_MODE_READ));
      const bytes = bytesOf(staging, storage.byteLength);
      if (keep && this.#hasRoom(capacity)) {
        staging.unmap();
        this.#kept.add(staging);
        this.#giveBack(staging, capacity);
        isKept = true;
      }
      return bytes;
    } finally {
      if (!isKept) staging.destroy();
    }
  }

  /** The fast way, with a buffer that has been mapped before. */
  async #peek(
    staging: GPUBuffer,
    capacity: number,
    storage: GpuStorage,
    size: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { done } = inErrorScopes(this.#device, "read", () => this.#copy(storage, staging, size));
    const mapped = staging.mapAsync(MAP_MODE_READ);
    let bytes: Uint8Array<ArrayBuffer> | undefined;
    try {
      bytes = bytesOf(staging, storage.byteLength);
      staging.unmap();
    } catch {
      // Not there yet: the promise tells when.
    }
    if (bytes) {
      this.#watch(mapped, staging, capacity);
      await this.#guard.race(done);
      return bytes;
    }
    try {
      await this.#guard.race(done);
      await this.#guard.race(mapped);
      bytes = bytesOf(staging, storage.byteLength);
      staging.unmap();
      this.#giveBack(staging, capacity);
      return bytes;
    } catch (error) {
      mapped.catch(() => {});
      this.#drop(staging);
      throw error;
    }
  }

  /** Whether this read is one of many. */
  #isLoop(): boolean {
    const now = performance.now();
    this.#readsInARow = now - this.#lastRead < LOOP_GAP ? this.#readsInARow + 1 : 1;
    this.#lastRead = now;
    return this.#readsInARow > LOOP_READS;
  }

  /** Has the buffer serve again once its mapping has settled. */
  #watch(mapped: Promise<void>, staging: GPUBuffer, capacity: number): void {
    const watched: Promise<void> = mapped
      .then(() => this.#giveBack(staging, capacity), () => this.#drop(staging))
      .finally(() => this.#underWay.delete(watched));
    this.#underWay.add(watched);
  }

  #copy(storage: GpuStorage, staging: GPUBuffer, size: number): void {
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(storage.buffer, storage.byteOffset, staging, 0, size);
    this.#device.queue.submit([encoder.finish()]);
  }

  /** Whether one more buffer may be kept; idle ones of other sizes make room. */
  #hasRoom(capacity: number): boolean {
    if (this.#kept.size < MOST_KEPT) return true;
    for (const [size, idle] of this.#idle) {
      const unused = size === capacity ? undefined : idle.pop();
      if (!unused) continue;
      this.#drop(unused);
      return true;
    }
    return false;
  }

  #giveBack(staging: GPUBuffer, capacity: number): void {
    // Destroyed meanwhile.
    if (!this.#kept.has(staging)) return;
    const idle = this.#idle.get(capacity);
    if (idle) idle.push(staging);
    else this.#idle.set(capacity, [staging]);
  }

  #drop(staging: GPUBuffer): void {
    this.#kept.delete(staging);
    staging.destroy();
  }
}

function bytesOf(staging: GPUBuffer, byteLength: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(staging.getMappedRange().slice(0, byteLength));
}

function isDeno(): boolean {
  return /^Deno\//.test((globalThis.navigator as Navigator | undefined)?.userAgent ?? "");
}
