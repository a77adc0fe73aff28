/**
 * Where kernels get the small buffers that go with their operands: new ones for a single submission, or
 * the same ones again for what is planned once and run often.
 *
 * @module
 */

import { scratchBuffer, smallBuffer } from "./buffers.ts";
import { USAGE } from "./flags.ts";
import { inErrorScopes } from "./gpu_errors.ts";

/** Gives buffers. */
export interface Memory {
  /** A buffer that holds `words`. */
  words(
    kind: "uniform" | "storage",
    label: string,
    words: Uint32Array<ArrayBuffer>,
  ): GPUBufferBinding;
  /** A buffer for what kernels hand each other. */
  scratch(label: string, byteLength: number): GPUBufferBinding;
}

/** New buffers, entered in `temporary`. */
export function temporaryMemory(device: GPUDevice, temporary: GPUBuffer[]): Memory {
  const own = (buffer: GPUBuffer): GPUBufferBinding => {
    temporary.push(buffer);
    return { buffer };
  };
  return {
    words: (kind, label, words) => own(smallBuffer(device, kind, label, words)),
    scratch: (label, byteLength) => own(scratchBuffer(device, label, byteLength)),
  };
}

/**
 * The same buffers in every round, as far as they are large enough: the first that is asked for is the
 * first of the round before, and so on.
 */
export class ReusedMemory implements Memory {
  readonly #device: GPUDevice;
  readonly #buffers: (GPUBuffer | undefined)[] = [];
  /** What was written to each buffer last. */
  readonly #words: (Uint32Array | undefined)[] = [];
  /** Of each buffer, until it is known whether it could be had. */
  readonly #pending: (Promise<void> | undefined)[] = [];
  #next = 0;
  #ready: Promise<void> = Promise.resolve();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Begins a round. */
  begin(): void {
    this.#next = 0;
    this.#ready = Promise.resolve();
  }

  /** Settles when it is known whether the round's buffers could be had: WebGPU answers later. */
  get ready(): Promise<void> {
    return this.#ready;
  }

  words(
    kind: "uniform" | "storage",
    label: string,
    words: Uint32Array<ArrayBuffer>,
  ): GPUBufferBinding {
    const usage = (kind === "uniform" ? USAGE.UNIFORM : USAGE.STORAGE) | USAGE.COPY_DST;
    return { buffer: this.#take(label, words.byteLength, usage, words) };
  }

  scratch(label: string, byteLength: number): GPUBufferBinding {
    return { buffer: this.#take(label, byteLength, USAGE.STORAGE) };
  }

  /** Writes other words to a buffer that holds as many, after the round. */
  rewrite({ buffer }: GPUBufferBinding, words: Uint32Array<ArrayBuffer>): void {
    this.#words[this.#buffers.indexOf(buffer as GPUBuffer)] = words;
    this.#device.queue.writeBuffer(buffer as GPUBuffer, 0, words);
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer?.destroy();
    this.#buffers.length = 0;
  }

  #take(
    label: string,
    byteLength: number,
    usage: number,
    words?: Uint32Array<ArrayBuffer>,
  ): GPUBuffer {
    const at = this.#next++;
    const known = this.#buffers[at];
    const before = this.#words[at];
    this.#words[at] = words;
    const fill = (buffer: GPUBuffer) => {
      if (words && words.length > 0) this.#device.queue.writeBuffer(buffer, 0, words);
      return buffer;
    };
    if (known && known.usage === usage && known.size >= byteLength) {
      const pending = this.#pending[at];
      if (!pending) return words && before && isSame(words, before) ? known : fill(known);
      // Whether it could be had is not known yet, and said once.
      this.#await(pending);
      const { result, done } = inErrorScopes(this.#device, label, () => fill(known));
      done.catch(() => {});
      return result;
    }
    // Room for what grows, so that not every token needs a new buffer.
    const size = 2 ** Math.ceil(Math.log2(Math.max(16, byteLength)));
    const { maxBufferSize } = this.#device.limits;
    const roomy = size <= Math.min(maxBufferSize, 2 ** 24) ? size : Math.ceil(byteLength / 16) * 16;
    known?.destroy();
    const { result: buffer, done } = inErrorScopes(
      this.#device,
      label,
      () => fill(this.#device.createBuffer({ label, size: roomy, usage })),
    );
    const pending = done.then(() => {
      if (this.#pending[at] === pending) this.#pending[at] = undefined;
    }, (error) => {
      // The next round must not take it.
      if (this.#buffers[at] === buffer) this.#buffers[at] = undefined;
      throw error;
    });
    this.#pending[at] = pending;
    this.#await(pending);
    return this.#buffers[at] = buffer;
  }

  #await(pending: Promise<void> | undefined): void {
    if (!pending) return;
    const before = this.#ready;
    this.#ready = pending.then(() => before);
    // Whoever runs hears of a failure; nobody may.
    this.#ready.catch(() => {});
  }
}

function isSame(a: Uint32Array, b: Uint32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
