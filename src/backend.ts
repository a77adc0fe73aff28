/**
 * The contract between the public calls and the two backends.
 *
 * A backend owns storage and computes attention over it, nothing more: shapes, dtypes and options
 * are checked before (`decode_problem.ts`, `prefill_problem.ts`, `ragged_problem.ts`, ...), and what is
 * to be computed arrives as a pure description ({@linkcode AttentionProblem}, ...). WebGPU lives in `webgpu/`, WASM in `cpu/`.
 *
 * @module
 */

import type { AppendProblem } from "./append_problem.ts";
import type { AttentionProblem, MergeProblem } from "./attention_problem.ts";
import type { ConvertProblem } from "./convert_problem.ts";
import type { DeviceReport } from "./report.ts";
import type { DeviceLostError } from "./errors.ts";

/** A piece of a backend's memory that holds one tensor. */
export interface Storage {
  /** Bytes that the tensor uses (the allocation may be larger). */
  readonly byteLength: number;
  /** The GPU's buffer, or null on a backend without one. */
  readonly buffer: GPUBuffer | null;
  /** Where in `buffer` the tensor begins. */
  readonly byteOffset: number;
  /**
   * Settles once it is known whether the memory could be had: WebGPU answers later than it
   * allocates. Rejects with `OutOfMemoryError`. Null where it is known, and there.
   */
  readonly ready: Promise<void> | null;
  /** Gives the memory back; does nothing to borrowed memory. Called once. */
  release(): void;
}

/** The operands of one attention call. */
export interface AttentionOperands {
  readonly q: Storage;
  readonly k: Storage;
  readonly v: Storage;
  /** Float32, where the problem has scales of tokens. */
  readonly kvScales?: Storage;
  readonly out: Storage;
  /** Float32, one value a (query, head); null where the caller does not want it. */
  readonly lse: Storage | null;
}

/** The operands of one merge: v in the problem's dtype, s and lse in float32. */
export interface MergeOperands {
  readonly vA: Storage;
  readonly sA: Storage;
  /** The second source; the first again where no row takes any of it. */
  readonly vB: Storage;
  readonly sB: Storage;
  /** May not share memory with a source. */
  readonly out: Storage;
  readonly lse: Storage;
}

/** The operands of one append. */
export interface AppendOperands {
  /** The rows, in the problem's dtype. */
  readonly key: Storage;
  readonly value: Storage;
  /** The cache, which may not share memory with the rows. One storage twice where v lies in k's tensor. */
  readonly k: Storage;
  readonly v: Storage;
  /** Float32, where the problem has scales of tokens: they are written. No other's buffer. */
  readonly kvScales?: Storage;
}

/** The operands of one conversion, which may not share memory. */
export interface ConvertOperands {
  readonly source: Storage;
  readonly result: Storage;
}

/** A part of one storage that goes to another, in bytes. */
export interface CopiedPart {
  readonly from: number;
  readonly to: number;
  readonly size: number;
}

/**
 * What is planned: attention, or some levels of it over different keys, whose states are merged. Levels
 * have q, k and v in common, and the same rows of results, in float32 with lse in base 2; all keys of
 * level i + 1 come behind those of level i.
 */
export interface PlannedWork {
  readonly levels: readonly AttentionProblem[];
  /** Of the merged results; null where there is one level, which is not merged. */
  readonly merged: Pick<AttentionProblem, "outDtype" | "lseScale"> | null;
}

/** Attention that is planned once and runs often. */
export interface PreparedAttention {
  /** Takes work in. When it throws, what was planned before stays. */
  plan(work: PlannedWork): void;
  /** Takes in a single problem that differs from the planned one in its lengths only. */
  update(problem: AttentionProblem): void;
  /** A run of what is planned now, whatever is planned before it is done. */
  begin(): PreparedRun;
  /** Gives memory back, as soon as no run needs it. Called once. */
  release(): void;
}

/** One run, from the call to its end. */
export interface PreparedRun {
  /** Computes, or records where there is an encoder (WebGPU only). */
  run(operands: AttentionOperands, encoder: GPUCommandEncoder | null): Promise<void>;
  /** Called once, whatever came of it. */
  end(): void;
}

/** What a device can do for the public calls. */
export interface Backend {
  readonly name: "webgpu" | "wasm";
  /** A snapshot: which adapter, which kernel variants so far, and why. */
  report(): DeviceReport;
  /** Settles when the device is gone, by accident or by `destroy`. */
  readonly lost: Promise<DeviceLostError>;

  /** New memory, zeroed. Throws `LimitError` or `OutOfMemoryError`. */
  allocate(byteLength: number, label: string): Storage;
  /** Memory of the caller's. Throws `OptionError` where it cannot be used. */
  borrow(buffer: GPUBuffer, byteOffset: number, byteLength: number): Storage;
  /** Copies `bytes` to `storage` at `byteOffset` (a multiple of 4). */
  write(storage: Storage, byteOffset: number, bytes: Uint8Array): void;
  /** A copy of all bytes of `storage`. */
  read(storage: Storage): Promise<Uint8Array<ArrayBuffer>>;
  /** Computes attention into `operands.out` and `operands.lse`. */
  attend(problem: AttentionProblem, operands: AttentionOperands): Promise<void>;
  /** A place for attention that runs often. */
  prepare(): PreparedAttention;
  /** Merges attention states into `operands.out` and `operands.lse`. */
  merge(problem: MergeProblem, operands: MergeOperands): Promise<void>;
  /** Writes rows into the slots of a paged cache; no other byte of it changes. */
  append(problem: AppendProblem, operands: AppendOperands): Promise<void>;
  /** Converts all elements of `operands.source` into `operands.result`. */
  convert(problem: ConvertProblem, operands: ConvertOperands): Promise<void>;
  /** Copies all bytes of one storage to another of the same length. */
  copy(from: Storage, to: Storage): Promise<void>;
  /** Copies parts of one storage to another; on WebGPU, of multiples of 4 bytes at such places. */
  copyParts(from: Storage, to: Storage, parts: readonly CopiedPart[]): Promise<void>;
  /** Frees what the backend owns. Called once. */
  destroy(): void;
}
