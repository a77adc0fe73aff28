/**
 * Devices: what owns tensors and runs attention.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { encodeValues } from "./cpu/codec.ts";
import { bytesPerElement, type DType, DTYPES, isDType } from "./dtype.ts";
import {
  DestroyedError,
  type DeviceLostError,
  DTypeError,
  OptionError,
  ShapeError,
} from "./errors.ts";
import type { DeviceReport } from "./report.ts";
import { checkShape, elementCount, show } from "./shape.ts";
import { DeviceTensor, type Tensor } from "./tensor.ts";

/**
 * A place where tensors live and attention runs: a GPU through WebGPU, or a WASM module.
 *
 * @example
 * ```ts
 * import { openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * using x = device.tensor([1, 2, 3, 4], [2, 2], "float8_e4m3fn");
 * console.log(await x.read()); // Float32Array [ 1, 2, 3, 4 ]
 * ```
 */
export interface Device extends Disposable {
  /** Which backend computes. */
  readonly backend: "webgpu" | "wasm";
  /** Adapter, features, limits, chosen kernel variants, and why; a snapshot. */
  readonly report: DeviceReport;
  /** Settles when the device is gone, by accident or by `destroy()`. Never rejects. */
  readonly lost: Promise<DeviceLostError>;
  /**
   * A tensor of `values` in row-major order.
   *
   * Rounds once, to nearest even: from float32 for a `Float32Array`, else from the JavaScript
   * number. FP8 saturates, as {@linkcode encodeFp8} does by default.
   *
   * @param values As many as the shape has elements; they are copied.
   * @param shape Sizes of the dims, outermost first.
   * @param dtype How to store them.
   * @throws {ShapeError} when shape and number of values do not fit; `DTypeError`; `LimitError`.
   */
  tensor(values: ArrayLike<number>, shape: readonly number[], dtype: DType): Tensor;
  /**
   * A tensor of bytes that are already in the dtype's storage format (little-endian).
   *
   * @param bytes Exactly as many as the tensor has; they are copied.
   * @param shape Sizes of the dims, outermost first.
   * @param dtype What the bytes are.
   * @throws {ShapeError} when the number of bytes does not fit; `DTypeError`; `LimitError`.
   */
  tensorFromBytes(bytes: Uint8Array, shape: readonly number[], dtype: DType): Tensor;
  /**
   * A tensor over a buffer of the caller's, which stays the caller's: it is not destroyed with the
   * tensor. WebGPU only.
   *
   * @param buffer A buffer of the same `GPUDevice` with usage STORAGE (and COPY_SRC to be read).
   * @param shape Sizes of the dims, outermost first.
   * @param dtype What the buffer holds.
   * @param byteOffset Where the tensor begins; a multiple of the device's
   *   `minStorageBufferOffsetAlignment` (at most 256). Default 0.
   * @throws {OptionError} on the WASM backend, or when the buffer does not fit.
   */
  tensorFromBuffer(
    buffer: GPUBuffer,
    shape: readonly number[],
    dtype: DType,
    byteOffset?: number,
  ): Tensor;
  /**
   * A tensor of zeros.
   *
   * @param shape Sizes of the dims, outermost first.
   * @param dtype How its elements are stored.
   * @throws {ShapeError} `DTypeError`, `LimitError`, `OutOfMemoryError`.
   */
  empty(shape: readonly number[], dtype: DType): Tensor;
  /**
   * Frees every tensor of the device and the device itself; a `GPUDevice` that the caller brought
   * stays alive. A second call does nothing.
   */
  destroy(): void;
}
/** The library's device over a backend. Users see {@linkcode Device}. */
export class KvasirDevice implements Device {
  readonly backend: "webgpu" | "wasm";
  readonly engine: Backend;
  /** The ledger: every live tensor. */
  readonly #tensors = new Set<DeviceTensor>();
  #destroyed = false;

  constructor(engine: Backend) {
    this.backend = engine.name;
    this.engine = engine;
  }

  get report(): DeviceReport {
    let bytes = 0;
    for (const tensor of this.#tensors) bytes += tensor.byteLength;
    return { ...this.engine.report(), memory: { tensors: this.#tensors.size, bytes } };
  }

  get lost(): Promise<DeviceLostError> {
    return this.engine.lost;
  }

  tensor(values: ArrayLike<number>, shape: readonly number[], dtype: DType): Tensor {
    const length = (values as ArrayLike<number> | null)?.length;
    if (typeof values !== "object" || !Number.isSafeInteger(length)) {
      throw new OptionError("values", {
        got: show(values),
        expected: "an array or typed array of numbers",
        hint: "Give the values in row-major order.",
      });
    }
    const tensor = this.#create(shape, dtype, `${length} values`, (count) => count === length);
    return this.#fill(tensor, (write) => encodeValues(values, dtype, { saturate: true }, write));
  }

  tensorFromBytes(bytes: Uint8Array, shape: readonly number[], dtype: DType): Tensor {
    if (!(bytes instanceof Uint8Array)) {
      throw new OptionError("bytes", {
        got: show(bytes),
        expected: "a Uint8Array",
        hint: "Wrap other views: new Uint8Array(view.buffer, view.byteOffset, view.byteLength).",
      });
    }
    const { byteLength } = bytes;
    const tensor = this.#create(
      shape,
      dtype,
      `${byteLength} bytes`,
      (count) => count * bytesPerElement(dtype) === byteLength,
    );
    return this.#fill(tensor, (write) => write(0, bytes));
  }

  tensorFromBuffer(
    buffer: GPUBuffer,
    shape: readonly number[],
    dtype: DType,
    byteOffset = 0,
  ): Tensor {
    const dims = this.#check(shape, dtype);
    const byteLength = elementCount(dims) * bytesPerElement(dtype);
    return new DeviceTensor(this, this.engine.borrow(buffer, byteOffset, byteLength), dims, dtype);
  }

  empty(shape: readonly number[], dtype: DType): DeviceTensor {
    return this.#create(shape, dtype, "", () => true);
  }

  destroy(): void {
    if (this.#destroyed) return;
    for (const tensor of [...this.#tensors]) tensor.destroy();
    this.#destroyed = true;
    this.engine.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Throws `DestroyedError` after `destroy()`. */
  checkAlive(subject: string): void {
    if (!this.#destroyed) return;
    throw new DestroyedError(subject, {
      got: "a destroyed device",
      expected: "an open one",
      hint: "Destroy a device (or leave its `using` block) only after its last use.",
    });
  }

  /** Enters a tensor into the ledger. */
  adopt(tensor: DeviceTensor): void {
    this.#tensors.add(tensor);
  }

  /** Strikes a tensor off the ledger. */
  forget(tensor: DeviceTensor): void {
    this.#tensors.delete(tensor);
  }

  #check(shape: readonly number[], dtype: DType): number[] {
    this.checkAlive("device");
    if (!isDType(dtype)) {
      throw new DTypeError("dtype", {
        got: show(dtype),
        expected: `one of ${DTYPES.join(", ")}`,
        hint: "Names are NumPy's and PyTorch's, in full.",
      });
    }
    return checkShape("shape", shape);
  }

  #create(
    shape: readonly number[],
    dtype: DType,
    got: string,
    fits: (elements: number) => boolean,
  ): DeviceTensor {
    const dims = this.#check(shape, dtype);
    const count = elementCount(dims);
    if (!fits(count)) {
      throw new ShapeError("shape", {
        got: `${got} for shape ${show(dims)}`,
        expected: `${count} elements of ${bytesPerElement(dtype)} bytes`,
        hint: "The product of the dims must be the number of values.",
      });
    }
    const label = `${dtype} ${show(dims)}`;
    const storage = this.engine.allocate(count * bytesPerElement(dtype), label);
    return new DeviceTensor(this, storage, dims, dtype);
  }

  /** Writes a new tensor's bytes; a failure leaves no tensor behind. */
  #fill(
    tensor: DeviceTensor,
    produce: (write: (byteOffset: number, bytes: Uint8Array) => void) => void,
  ): DeviceTensor {
    try {
      const storage = tensor.beginUse("tensor");
      produce((byteOffset, bytes) => this.engine.write(storage, byteOffset, bytes));
      tensor.endUse();
      return tensor;
    } catch (error) {
      tensor.endUse();
      tensor.destroy();
      throw error;
    }
  }
}
