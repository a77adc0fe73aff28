/**
 * What a bench run writes as JSON, and `bench:report` reads.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { AdapterReport } from "../src/report.ts";

/** The version of the format; a file of another version is refused. */
export const RESULT_VERSION = 1;

/** One run of the bench on one machine. */
export interface BenchResult {
  readonly version: typeof RESULT_VERSION;
  /** ISO 8601. */
  readonly date: string;
  /** The commit, with `+` when the tree had changes; empty where git was not to be had. */
  readonly commit: string;
  /** The machine that a person named, or its processor. */
  readonly machine: string;
  readonly runtime: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly adapter: AdapterReport | null;
  readonly shaderCompiler: "naga" | "tint" | null;
  /** What the machine can do at most, measured in this run; null without a GPU. */
  readonly limits: MeasuredLimits | null;
  readonly lines: readonly BenchLine[];
}

/** Limits measured in the run. */
export interface MeasuredLimits {
  /** Reading a buffer far larger than any cache, 16 bytes a lane, GB/s (10^9). */
  readonly readGbPerSecond: number;
  /** Fused multiply-adds in float32, TFLOP/s (two operations each). */
  readonly f32Tflops: number;
  /** The same on vec4<f16>; null without shader-f16. */
  readonly f16Tflops: number | null;
  /** GPU time of an empty dispatch among many. */
  readonly dispatchMicroseconds: number;
  /** From submitting a dispatch until its 4 bytes are read. */
  readonly roundTripMicroseconds: number;
}

/** Times of one thing, in microseconds. */
export interface Samples {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly raw: readonly number[];
}

/** The sizes of an attention problem. */
export interface BenchShape {
  readonly batch: number;
  readonly qoLen: number;
  /** Keys of a request; of the longest, where they differ. */
  readonly kvLen: number;
  /** Keys of all requests together, where they differ. */
  readonly kvTokens?: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Where v's differs. */
  readonly headDimV?: number;
  /** A sliding window. */
  readonly windowLeft?: number;
  /** Tokens of a page, where the cache has pages. */
  readonly pageSize?: number;
  /** What the cache has scales of, where that is timed. */
  readonly scales?: "heads" | "tokens";
  /** The dtype of q and the output, where it is not float16. */
  readonly queries?: "float8_e4m3fn" | "float8_e5m2";
  /** The dtype of v, where it is not k's. */
  readonly vDtype?: DType;
}

/** One measurement. */
export interface BenchLine {
  /** `"decode"`, `"prefill"`, `"codec"`, `"cpu decode"`, `"cpu prefill"`, ... */
  readonly family: string;
  /** `"kvasir"`, `"onnxruntime-web"`, `"FlashInfer"`, ... */
  readonly library: string;
  /** Where a figure was not measured in this run: where it comes from. */
  readonly recorded?: string;
  readonly shape: BenchShape | null;
  /** The dtype of the KV cache, or what the line converts. */
  readonly dtype: string;
  /** The kernel's name, or the variant. */
  readonly kernel: string;
  /** Time on the device that computes. */
  readonly time: Samples;
  /** Time of a whole call until its result is read, as a token loop sees it. */
  readonly wall?: Samples;
  /** Bytes that have to move, and operations that have to be done. */
  readonly bytes: number;
  readonly flops: number;
  /** What bounds it here, and the share of that bound that it reaches (0 to 1). */
  readonly bound?: "bandwidth" | "arithmetic";
  readonly share?: number;
  /** Whether what it reads fits the last cache, so that the bound is not the memory. */
  readonly fitsCache?: boolean;
  /** Largest difference from the reference on the same inputs. */
  readonly error?: number;
}

/** The median and spread of times. */
export function samples(times: readonly number[]): Samples {
  const sorted = times.slice().sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return {
    median: (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2,
    min: sorted[0],
    max: sorted[sorted.length - 1],
    raw: times,
  };
}
