/**
 * The WASM module and its exports.
 *
 * Instances are cheap (no imports); each owns a memory of its own.
 *
 * @module
 */

import { bytes } from "../generated/wasm.js";
import { bytesPerElement, type DType } from "../dtype.ts";
import { KvasirError, OutOfMemoryError } from "../errors.ts";

/** The exports of the crate; see wasm/src/lib.rs. */
export interface WasmExports {
  readonly memory: WebAssembly.Memory;
  block_alloc(bytes: number): number;
  block_ptr(handle: number): number;
  block_free(handle: number): void;
  convert(
    src: number,
    srcOffset: number,
    srcDtype: number,
    dst: number,
    dstOffset: number,
    dstDtype: number,
    count: number,
    saturate: number,
  ): number;
  attention(descriptor: number): number;
  merge(descriptor: number): number;
}

/** The crate's number of each dtype; it reads float64 too. */
export const WASM_DTYPE: Readonly<Record<DType | "float64", number>> = {
  float32: 0,
  float16: 1,
  bfloat16: 2,
  float8_e4m3fn: 3,
  float8_e5m2: 4,
  float64: 5,
};

let compiled: WebAssembly.Module | undefined;

/** The module; compiled once. */
function wasmModule(): WebAssembly.Module {
  return compiled ??= new WebAssembly.Module(bytes());
}

/** One instance with a memory of its own. */
export class WasmInstance {
  readonly exports: WasmExports;

  constructor() {
    this.exports = new WebAssembly.Instance(wasmModule(), {}).exports as unknown as WasmExports;
  }

  /** A zeroed block. Throws `OutOfMemoryError`. */
  allocate(byteLength: number, label: string): number {
    const handle = this.exports.block_alloc(byteLength) >>> 0;
    if (handle !== 0) return handle;
    const used = this.exports.memory.buffer.byteLength;
    throw new OutOfMemoryError(label, {
      got: `a request for ${byteLength} bytes beside ${used} bytes of WASM memory`,
      expected: "a block of less than 2 GiB, and less than 4 GiB in all",
      hint: "Destroy tensors that are no longer needed, or use a smaller dtype for the cache.",
    });
  }

  free(handle: number): void {
    this.exports.block_free(handle);
  }

  /** A view of a block; it is void after the next allocation, which may move the memory. */
  view(handle: number, byteLength: number, byteOffset = 0): Uint8Array<ArrayBuffer> {
    const start = (this.exports.block_ptr(handle) >>> 0) + byteOffset;
    return new Uint8Array(this.exports.memory.buffer as ArrayBuffer, start, byteLength);
  }

  /** Fails loudly on a status that says that this glue and the crate disagree. */
  check(call: string, status: number): void {
    if (status === 0) return;
    throw new KvasirError(call, {
      got: `status ${status} from the WASM module`,
      expected: "0",
      hint: "This is a fault of the library; please report it with the shapes of the call.",
    });
  }
}

/** Bytes of an element of a dtype that the crate reads. */
export function wasmElementBytes(dtype: DType | "float64"): number {
  return dtype === "float64" ? 8 : bytesPerElement(dtype);
}

/** Rust holds no allocation beyond this. */
export const MAX_BLOCK: number = 2 ** 31 - 2 ** 16;
