/**
 * Where kernels get the small buffers that go with their operands: new ones for a single submission, or
 * the same ones again for what is planned once and run often.
 *
 * @module
 */

import { scratchBuffer, smallBuffer } from "./buffers.ts";
import { USAGE } from "./flags.ts";

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
  readonly #buffers: GPUBuffer[] = [];
  #next = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Begins a round. */
  begin(): void {
    this.#next = 0;
  }

  words(
    kind: "uniform" | "storage",
    label: string,
    words: Uint32Array<ArrayBuffer>,
  ): GPUBufferBinding {
    const usage = (kind === "uniform" ? USAGE.UNIFORM : USAGE.STORAGE) | USAGE.COPY_DST;
    const buffer = this.#take(label, words.byteLength, usage);
    if (words.byteLength > 0) this.#device.queue.writeBuffer(buffer, 0, words);
    return { buffer };
  }

  scratch(label: string, byteLength: number): GPUBufferBinding {
    return { buffer: this.#take(label, byteLength, USAGE.STORAGE) };
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
    this.#buffers.length = 0;
  }

  #take(label: string, byteLength: number, usage: number): GPUBuffer {
    const at = this.#next++;
    const known = this.#buffers[at];
    if (known && known.usage === usage && known.size >= byteLength) return known;
    // Room for what grows, so that not every token needs a new buffer.
    const size = 2 ** Math.ceil(Math.log2(Math.max(16, byteLength)));
    const { maxBufferSize } = this.#device.limits;
    const roomy = size <= Math.min(maxBufferSize, 2 ** 24) ? size : Math.ceil(byteLength / 16) * 16;
    known?.destroy();
    return this.#buffers[at] = this.#device.createBuffer({ label, size: roomy, usage });
  }
}
