/**
 * The CPU backend: tensors live in the memory of a WASM instance, whose one attention routine
 * computes every family (wasm/src/attention.rs).
 *
 * @module
 */

import type { AttentionProblem, MergeProblem } from "../attention_problem.ts";
import type { AttentionOperands, Backend, MergeOperands, Storage } from "../backend.ts";
import { DeviceLostError, LimitError, OptionError } from "../errors.ts";
import type { DeviceReport } from "../report.ts";
import { attentionDescriptor } from "./descriptor.ts";
import { MAX_BLOCK, WasmInstance } from "./wasm_module.ts";

/** A block of the WASM memory. */
export class WasmStorage implements Storage {
  readonly buffer = null;
  readonly byteOffset = 0;
  readonly ready: Promise<void> = Promise.resolve();

  constructor(
    readonly instance: WasmInstance,
    readonly handle: number,
    readonly byteLength: number,
  ) {}

  release(): void {
    this.instance.free(this.handle);
  }
}

/** Attention in WASM SIMD, on the calling thread. */
export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly lost: Promise<DeviceLostError>;
  readonly #instance: WasmInstance = new WasmInstance();
  readonly #reason: string;
  #resolveLost: (error: DeviceLostError) => void = () => {};

  /** @param reason Why this backend, for the report. */
  constructor(reason: string) {
    this.#reason = reason;
    this.lost = new Promise((resolve) => this.#resolveLost = resolve);
  }

  report(): DeviceReport {
    return {
      backend: "wasm",
      reason: this.#reason,
      description: "WASM SIMD, one thread",
      adapter: null,
      features: ["simd128"],
      limits: { maxBufferSize: MAX_BLOCK },
      shaderCompiler: null,
      subgroupSize: null,
      kernels: [{ family: "attention", variant: "simd128", reason: "the only build" }],
      memory: { tensors: 0, bytes: 0 },
    };
  }

  allocate(byteLength: number, label: string): WasmStorage {
    if (byteLength > MAX_BLOCK) {
      throw new LimitError(label, {
        got: `${byteLength} bytes`,
        expected: `at most ${MAX_BLOCK} bytes, what the WASM module allocates in one piece`,
        hint: "Use a smaller batch, a shorter cache or a smaller dtype.",
      });
    }
    return new WasmStorage(this.#instance, this.#instance.allocate(byteLength, label), byteLength);
  }

  borrow(): Storage {
    throw new OptionError("tensorFromBuffer", {
      got: "a GPUBuffer for the WASM backend",
      expected: "a device of the WebGPU backend",
      hint: "Use tensor() or tensorFromBytes() here.",
    });
  }

  write(storage: WasmStorage, byteOffset: number, bytes: Uint8Array): void {
    this.#instance.view(storage.handle, bytes.byteLength, byteOffset).set(bytes);
  }

  // Async, so that failures reject on both backends alike.
  // deno-lint-ignore require-await
  async read(storage: WasmStorage): Promise<Uint8Array<ArrayBuffer>> {
    return this.#instance.view(storage.handle, storage.byteLength).slice();
  }

  // deno-lint-ignore require-await
  async attend(problem: AttentionProblem, operands: AttentionOperands): Promise<void> {
    const { numRequests, requests } = problem;
    const pageTable = problem.pageTable ?? Uint32Array.from({ length: numRequests }, (_, i) => i);
    const handles: number[] = [];
    try {
      const upload = (words: Uint32Array<ArrayBuffer>, label: string) => {
        const handle = this.#instance.allocate(words.byteLength, label);
        handles.push(handle);
        const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
        this.#instance.view(handle, words.byteLength).set(bytes);
        return handle;
      };
      const handleOf = (storage: Storage) => (storage as WasmStorage).handle;
      const descriptor = attentionDescriptor(problem, {
        q: handleOf(operands.q),
        k: handleOf(operands.k),
        v: handleOf(operands.v),
        out: handleOf(operands.out),
        lse: operands.lse ? handleOf(operands.lse) : 0,
        requests: upload(requests, "the request table"),
        pageTable: upload(pageTable, "the page table"),
        pageTableLength: pageTable.length,
      });
      const handle = upload(descriptor, "the descriptor");
      this.#instance.check("attention", this.#instance.exports.attention(handle));
    } finally {
      for (const handle of handles) this.#instance.free(handle);
    }
  }

  merge(_problem: MergeProblem, _operands: MergeOperands): Promise<void> {
    return Promise.reject(new Error("merge is not there yet"));
  }

  copy(_from: Storage, _to: Storage): Promise<void> {
    return Promise.reject(new Error("copy is not there yet"));
  }

  destroy(): void {
    this.#resolveLost(
      new DeviceLostError("device", {
        got: "destroy()",
        expected: "an open device",
        hint: "Open another device to go on.",
      }),
    );
  }
}
