/**
 * The CPU backend: tensors live in the memory of a WASM instance, whose one attention routine
 * computes all attention (wasm/src/attention/), and whose merge routine joins states (wasm/src/merge/);
 * appends and conversions go through its codec.
 *
 * @module
 */

import type { AppendProblem } from "../append_problem.ts";
import { type AttentionProblem, KEEP_ROW, type MergeProblem } from "../attention_problem.ts";
import type {
  AppendOperands,
  AttentionOperands,
  Backend,
  ConvertOperands,
  CopiedPart,
  MergeOperands,
  PreparedAttention,
  Storage,
} from "../backend.ts";
import type { ConvertProblem } from "../convert_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import { DeviceLostError, LimitError, OptionError } from "../errors.ts";
import type { DeviceReport } from "../report.ts";
import { appendRows } from "./append.ts";
import { convertElements } from "./convert.ts";
import { PreparedOnCpu } from "./prepared.ts";
import { attentionDescriptor, attentionTables, mergeDescriptor } from "./descriptor.ts";
import { MAX_BLOCK, WasmInstance } from "./wasm_module.ts";

/** A block of the WASM memory. */
export class WasmStorage implements Storage {
  readonly buffer = null;
  readonly byteOffset = 0;
  readonly ready = null;

  constructor(
    readonly instance: WasmInstance,
    readonly handle: number,
    readonly byteLength: number,
  ) {}

  release(): void {
    this.instance.free(this.handle);
  }
}

/** Copies a table into the WASM memory; its handle. */
type Upload = (words: Uint32Array<ArrayBuffer>, label: string) => number;

function handleOf(storage: Storage): number {
  return (storage as WasmStorage).handle;
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

  async attend(problem: AttentionProblem, operands: AttentionOperands): Promise<void> {
    if (problem.variant) {
      const { logitsTransform } = problem.variant;
      throw new OptionError(`options.${logitsTransform ? "logitsTransform" : "logitsMask"}`, {
        got: "WGSL for the WASM backend",
        expected: "a device of the WebGPU backend",
        hint: "Here, use customMask, logitsSoftCap or posEncodingMode.",
      });
    }
    await this.#call("attention", (upload) =>
      attentionDescriptor(problem, {
        q: handleOf(operands.q),
        k: handleOf(operands.k),
        v: handleOf(operands.v),
        vBytes: operands.v.byteLength,
        out: handleOf(operands.out),
        lse: operands.lse ? handleOf(operands.lse) : 0,
        kvScales: operands.kvScales ? handleOf(operands.kvScales) : 0,
        tables: upload(attentionTables(problem), "the tables of requests and pages"),
      }));
  }

  prepare(): PreparedAttention {
    return new PreparedOnCpu(this);
  }

  async merge(problem: MergeProblem, operands: MergeOperands): Promise<void> {
    const { vA, sA, vB, sB, out, lse } = operands;
    // The module merges nothing into the rows that are kept; they are copied after.
    const rows = problem.rows.map((word, i) => i % 4 === 1 && word === KEEP_ROW ? 0 : word);
    await this.#call("merge", (upload) =>
      mergeDescriptor(problem, {
        vA: handleOf(vA),
        sA: handleOf(sA),
        vB: handleOf(vB),
        sB: handleOf(sB),
        out: handleOf(out),
        lse: handleOf(lse),
        rows: upload(rows, "the table of rows"),
      }));
    const { numRows, numHeads, headDim, vDtype } = problem;
    for (let row = 0; row < numRows; row++) {
      if (problem.rows[row * 4 + 1] !== KEEP_ROW) continue;
      const from = problem.rows[row * 4];
      this.#copyRow(vA, from, out, row, numHeads * headDim * bytesPerElement(vDtype));
      this.#copyRow(sA, from, lse, row, numHeads * 4);
    }
  }

  #copyRow(source: Storage, from: number, target: Storage, to: number, byteLength: number): void {
    const view = (storage: Storage, row: number) =>
      this.#instance.view(handleOf(storage), byteLength, row * byteLength);
    view(target, to).set(view(source, from));
  }

  // deno-lint-ignore require-await
  async append(problem: AppendProblem, operands: AppendOperands): Promise<void> {
    appendRows(this.#instance, problem, {
      key: handleOf(operands.key),
      value: handleOf(operands.value),
      k: handleOf(operands.k),
      v: handleOf(operands.v),
      kvScales: operands.kvScales ? handleOf(operands.kvScales) : 0,
    });
  }

  // deno-lint-ignore require-await
  async convert(problem: ConvertProblem, { source, result }: ConvertOperands): Promise<void> {
    const handles = { source: handleOf(source), result: handleOf(result) };
    convertElements(this.#instance, problem, handles);
  }

  // deno-lint-ignore require-await
  async copy(from: WasmStorage, to: WasmStorage): Promise<void> {
    this.write(to, 0, this.#instance.view(from.handle, from.byteLength));
  }

  // deno-lint-ignore require-await
  async copyParts(
    from: WasmStorage,
    to: WasmStorage,
    parts: readonly CopiedPart[],
  ): Promise<void> {
    for (const part of parts) {
      this.write(to, part.to, this.#instance.view(from.handle, part.size, part.from));
    }
  }

  /** Calls an export with a descriptor; what was uploaded for it is freed after. */
  // deno-lint-ignore require-await
  async #call(
    name: "attention" | "merge",
    describe: (upload: Upload) => Uint32Array<ArrayBuffer>,
  ): Promise<void> {
    const handles: number[] = [];
    const upload: Upload = (words, label) => {
      const handle = this.#instance.allocate(words.byteLength, label);
      handles.push(handle);
      const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
      this.#instance.view(handle, words.byteLength).set(bytes);
      return handle;
    };
    try {
      const handle = upload(describe(upload), "the descriptor");
      this.#instance.check(name, this.#instance.exports[name](handle));
    } finally {
      for (const handle of handles) this.#instance.free(handle);
    }
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
