/**
 * Tensors: shape, dtype and a piece of a device's memory.
 *
 * @module
 */

import type { Storage } from "./backend.ts";
import type { Device, KvasirDevice } from "./device.ts";
import { bytesPerElement, type DType } from "./dtype.ts";
import { DestroyedError, DeviceMismatchError, OptionError } from "./errors.ts";
import { decodeToFloat32 } from "./cpu/codec.ts";
import { elementCount, show } from "./shape.ts";

/**
 * A dense, row-major array on a {@linkcode Device}.
 *
 * Its memory is freed by {@linkcode Tensor.destroy}, at the end of a `using` block, or with its
 * device; the garbage collector does not do it.
 */
export interface Tensor extends Disposable {
  /** The device that holds it. */
  readonly device: Device;
  /** The sizes of its dims, outermost first. */
  readonly shape: readonly number[];
  /** How its elements are stored. */
  readonly dtype: DType;
  /**
   * The GPU's buffer, for those who go on in WebGPU; null on the WASM backend. A tensor that the
   * library made begins at byte 0 of its buffer.
   */
  readonly buffer: GPUBuffer | null;
  /**
   * The values, widened to float32 (exact for every dtype), in row-major order.
   *
   * @throws {DestroyedError} after `destroy()`; `DeviceLostError`; `OutOfMemoryError`.
   */
  read(): Promise<Float32Array<ArrayBuffer>>;
  /**
   * The bytes as they are stored, little-endian.
   *
   * @throws {DestroyedError} after `destroy()`; `DeviceLostError`; `OutOfMemoryError`.
   */
  readBytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** Frees the memory. Calls under way still finish; a second call does nothing. */
  destroy(): void;
}

/** The library's tensor. Users see {@linkcode Tensor}. */
export class DeviceTensor implements Tensor {
  readonly device: KvasirDevice;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly #storage: Storage;
  /** Calls that are using the storage; it is released when the last ends after `destroy`. */
  #uses = 0;
  #destroyed = false;

  constructor(device: KvasirDevice, storage: Storage, shape: readonly number[], dtype: DType) {
    this.device = device;
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
    this.#storage = storage;
    device.adopt(this);
  }

  get byteLength(): number {
    return elementCount(this.shape) * bytesPerElement(this.dtype);
  }

  get buffer(): GPUBuffer | null {
    this.#checkAlive("buffer");
    return this.#storage.buffer;
  }

  async readBytes(): Promise<Uint8Array<ArrayBuffer>> {
    return await useTensors([["tensor", this]], ([storage]) => this.device.engine.read(storage));
  }

  async read(): Promise<Float32Array<ArrayBuffer>> {
    return decodeToFloat32(await this.readBytes(), this.dtype);
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.device.forget(this);
    if (this.#uses === 0) this.#storage.release();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Keeps the storage alive until {@linkcode DeviceTensor.endUse}. */
  beginUse(subject: string): Storage {
    this.#checkAlive(subject);
    this.#uses++;
    return this.#storage;
  }

  endUse(): void {
    this.#uses--;
    if (this.#uses === 0 && this.#destroyed) this.#storage.release();
  }

  #checkAlive(subject: string): void {
    this.device.checkAlive(subject);
    if (this.#destroyed) {
      throw new DestroyedError(subject, {
        got: "a destroyed tensor",
        expected: "a live one",
        hint: "Destroy a tensor (or leave its `using` block) only after its last use.",
      });
    }
  }
}

/** `value` as a tensor of this library, or `OptionError`. */
export function asDeviceTensor(subject: string, value: unknown): DeviceTensor {
  if (value instanceof DeviceTensor) return value;
  throw new OptionError(subject, {
    got: show(value),
    expected: "a tensor",
    hint: "Make one with device.tensor(values, shape, dtype).",
  });
}

/** The device that all of `tensors` share, or `DeviceMismatchError`. */
export function commonDevice(tensors: readonly (readonly [string, DeviceTensor])[]): KvasirDevice {
  const [[firstName, first]] = tensors;
  for (const [name, tensor] of tensors) {
    if (tensor.device !== first.device) {
      throw new DeviceMismatchError(name, {
        got: `a tensor of another device (${tensor.device.backend})`,
        expected: `the device of ${firstName} (${first.device.backend})`,
        hint: "Make all tensors of a call with the same device.",
      });
    }
  }
  return first.device;
}

/**
 * Runs `work` over the storages of `tensors`, which stay allocated until it settles even when the
 * caller destroys a tensor meanwhile.
 */
export async function useTensors<T>(
  tensors: readonly (readonly [string, DeviceTensor])[],
  work: (storages: Storage[]) => Promise<T>,
): Promise<T> {
  const storages: Storage[] = [];
  try {
    for (const [subject, tensor] of tensors) storages.push(tensor.beginUse(subject));
    // A token loop's tensors have been there for long: it does not wait for other tasks.
    for (const { ready } of storages) if (ready) await ready;
    return await work(storages);
  } finally {
    for (let i = 0; i < storages.length; i++) tensors[i][1].endUse();
  }
}
