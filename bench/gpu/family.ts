/**
 * What the bench asks of a kernel family. A family is one file that makes cases (decode.ts); what
 * times, checks, sweeps, profiles and prints them knows no family.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { Dispatch } from "../../src/webgpu/dispatch.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { BenchShape } from "../results.ts";

/** Constants of a kernel by name, as a sweep tries them. */
export type Tuning = Readonly<Record<string, number>>;

/** One problem of a family. */
export interface GpuCase {
  readonly family: string;
  readonly shape: BenchShape;
  /** The dtype of the KV cache. */
  readonly dtype: DType;
  /** Bytes that have to move, and operations that have to be done. */
  readonly bytes: number;
  readonly flops: number;
  /** Plans, compiles and allocates. Throws where the device is too small. */
  open(backend: WebGpuBackend, tuning?: Tuning): Promise<OpenCase>;
}

/** A case with its memory on the device. */
export interface OpenCase {
  readonly kernel: string;
  /**
   * The dispatches of one call, in order; once for each copy of the inputs. Copies are taken in
   * turn, so that none is read from a cache.
   */
  readonly calls: readonly (readonly Dispatch[])[];
  /** The largest difference from the reference, after a call has run. Throws for a wrong result. */
  check(): Promise<number>;
  /** One call through the public interface, until its result is read; null where it has none. */
  readonly callAndRead: (() => Promise<void>) | null;
  release(): void;
}

/** A case as the table and the filter name it. */
export function caseName(
  { family, shape: s, dtype }: { family: string; shape: BenchShape; dtype: string },
): string {
  const keys = s.kvTokens === undefined ? `${s.kvLen}` : `1..${s.kvLen}`;
  const tokens = s.qoLen === 1
    ? `${keys} ${family === "merge" ? "states" : "keys"}`
    : s.qoLen === s.kvLen
    ? `${s.qoLen} tokens`
    : `${s.qoLen} tokens over ${keys} keys`;
  const dims = s.headDimV ? `, D ${s.headDim} and ${s.headDimV}` : `, D ${s.headDim}`;
  const window = s.windowLeft === undefined ? "" : `, window ${s.windowLeft}`;
  const pages = s.pageSize === undefined ? "" : `, pages of ${s.pageSize}`;
  const scales = s.scales === undefined ? "" : `, scales of ${s.scales}`;
  const queries = s.queries === undefined ? "" : `, q and out in ${s.queries}`;
  const odd = (s.headDim === 128 || family === "merge" ? "" : dims) + window + pages + scales +
    queries;
  const values = s.vDtype === undefined ? "" : ` and ${s.vDtype}`;
  return `${family} ${s.batch} x ${tokens}, ${s.numQoHeads}/${s.numKvHeads}${odd}, ${dtype}${values}`;
}
