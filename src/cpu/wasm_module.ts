/**
 * The WASM module: which build runs here, and its exports.
 *
 * Two builds are shipped: baseline SIMD, and one with relaxed SIMD (fused multiply-add), which an
 * engine may not know. Instances are cheap (no imports); each owns a memory of its own.
 *
 * @module
 */

import { bytes as baselineBytes } from "../generated/wasm_baseline.js";
import { bytes as relaxedBytes } from "../generated/wasm_relaxed.js";
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

/** A build of the module. */
export interface WasmBuild {
  readonly variant: "simd128" | "relaxed-simd";
  readonly reason: string;
  readonly module: WebAssembly.Module;
}

let chosen: WasmBuild | undefined;

/** The best build that this engine takes; compiled once. */
export function wasmBuild(): WasmBuild {
  if (chosen) return chosen;
  const relaxed = relaxedBytes();
  chosen = WebAssembly.validate(relaxed)
    ? {
      variant: "relaxed-simd",
      reason: "the engine has relaxed SIMD: multiply and add are one instruction",
      module: new WebAssembly.Module(relaxed),
    }
    : {
      variant: "simd128",
      reason: "the engine has no relaxed SIMD",
      module: new WebAssembly.Module(baselineBytes()),
    };
  return chosen;
}

/** One instance with a memory of its own. */
export class WasmInstance {
  readonly exports: WasmExports;

  constructor(build: WasmBuild = wasmBuild()) {
    this.exports = new WebAssembly.Instance(build.module, {}).exports as unknown as WasmExports;
  }

  /** A zeroed block. Throws `OutOfMemoryError`. */
  allocate(byteLength: number, label: string): number {
    const handle = byteLength <= MAX_BLOCK ? this.exports.block_alloc(byteLength) >>> 0 : 0;
    if (handle !== 0) return handle;
    const used = this.exports.memory.buffer.byteLength;
    throw new OutOfMemoryError(label, {
      got: `a request for ${byteLength} bytes beside ${used} bytes of WASM memory`,
      expected: "less: a WASM memory holds 4 GiB at most",
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

const MAX_BLOCK = 0xffff_0000;
