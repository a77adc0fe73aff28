/**
 * The decode problems that are timed, and what they have to move and to compute.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import { bytesPerElement } from "../../src/dtype.ts";
import type { BenchShape } from "../results.ts";

/** A decode problem. */
export interface DecodeProblem {
  readonly shape: BenchShape;
  readonly dtype: DType;
  /** Keys of each request, where they differ. */
  readonly seqLens?: readonly number[];
}

const HEAD_DIM = 128;
const DTYPES = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const;

function shape(
  batch: number,
  kvLen: number,
  numQoHeads: number,
  numKvHeads: number,
): BenchShape {
  return { batch, qoLen: 1, kvLen, numQoHeads, numKvHeads, headDim: HEAD_DIM };
}

/** Lengths from 1 to `longest`, the same in every run. */
export function mixedLengths(batch: number, longest: number): number[] {
  let state = 1;
  return Array.from({ length: batch }, () => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0;
    return 1 + Math.floor(state / 2 ** 32 * longest);
  });
}

/** A padded batch whose requests have lengths from 1 to `kvLen`. */
function mixed(base: BenchShape): Pick<DecodeProblem, "shape" | "seqLens"> {
  const seqLens = mixedLengths(base.batch, base.kvLen);
  return { shape: { ...base, kvTokens: seqLens.reduce((a, b) => a + b) }, seqLens };
}

const inEachDtype = (
  problems: readonly Pick<DecodeProblem, "shape" | "seqLens">[],
): readonly DecodeProblem[] =>
  problems.flatMap((problem) => DTYPES.map((dtype) => ({ ...problem, dtype })));

/** FP8 with scales of heads, which cost nothing, and of tokens, padded and in pages. */
const SCALED: readonly DecodeProblem[] = (["heads", "tokens"] as const).flatMap((scales) =>
  (["float8_e4m3fn", "float8_e5m2"] as const).flatMap((dtype) => [
    { shape: { ...shape(64, 4096, 32, 8), scales }, dtype },
    { shape: { ...shape(64, 4096, 32, 8), scales, pageSize: 16 }, dtype },
  ])
);

/** FP8 throughout. */
const WHOLE: readonly DecodeProblem[] = (["float8_e4m3fn", "float8_e5m2"] as const).map((
  dtype,
) => ({
  shape: { ...shape(64, 4096, 32, 8), queries: dtype },
  dtype,
}));

/** Keys in a dtype with range, values in one with precision. */
const MIXED: readonly DecodeProblem[] = ([
  ["float8_e5m2", "float8_e4m3fn"],
  ["float16", "float8_e4m3fn"],
  ["float16", "float8_e5m2"],
] as const).map(([dtype, vDtype]) => ({ shape: { ...shape(64, 4096, 32, 8), vDtype }, dtype }));

/**
 * Every group size at one cache, the shapes of FlashInfer's own measurements
 * (bench/peers/flashinfer.ts), a batch of mixed lengths, caches with scales, queries in FP8, and k and v in two dtypes.
 */
export const DECODE_PROBLEMS: readonly DecodeProblem[] = [
  ...inEachDtype([
    ...[1, 2, 3, 4, 5, 6, 7, 8].map((group) => ({ shape: shape(64, 4096, 8 * group, 8) })),
    { shape: shape(16, 1024, 32, 32) },
    { shape: shape(64, 1024, 32, 8) },
    { shape: shape(256, 1024, 32, 8) },
    { shape: shape(1, 8192, 32, 8) },
    { shape: shape(1, 131072, 32, 8) },
    mixed(shape(64, 8192, 32, 8)),
    ...[16, 1].map((pageSize) => ({ shape: { ...shape(64, 4096, 32, 8), pageSize } })),
  ]),
  ...SCALED,
  ...WHOLE,
  ...MIXED,
];

/** For software adapters. */
export const SMALL_DECODE_PROBLEMS: readonly DecodeProblem[] = inEachDtype([
  { shape: shape(2, 256, 4, 4) },
  { shape: shape(2, 256, 8, 2) },
  mixed(shape(4, 256, 8, 2)),
  { shape: { ...shape(2, 256, 8, 2), pageSize: 16 } },
  { shape: { ...shape(2, 256, 8, 2), scales: "heads" } },
  { shape: { ...shape(2, 256, 8, 2), vDtype: "float8_e4m3fn" } },
  { shape: { ...shape(2, 256, 8, 2), queries: "float8_e4m3fn" } },
  { shape: { ...shape(2, 256, 8, 2), scales: "tokens" } },
  { shape: { ...shape(2, 256, 8, 2), scales: "tokens", pageSize: 16 } },
]);

/** Keys of all requests together. */
function tokens({ batch, kvLen, kvTokens }: BenchShape): number {
  return kvTokens ?? batch * kvLen;
}

/**
 * Bytes that decode has to move: k and v as far as they count, with the scales of tokens, and q and out
 * in float16.
 */
export function decodeBytes({ shape: s, dtype }: DecodeProblem): number {
  const element = bytesPerElement(dtype) + bytesPerElement(s.vDtype ?? dtype);
  const pair = s.headDim * element + (s.scales === "tokens" ? 8 : 0);
  const cache = tokens(s) * s.numKvHeads * pair;
  const rows = s.batch * s.numQoHeads * s.headDim;
  return cache + 2 * rows * bytesPerElement(s.queries ?? "float16");
}

/** Operations of decode, as FlashInfer counts them. */
export function decodeFlops({ shape: s }: DecodeProblem): number {
  return 4 * s.numQoHeads * tokens(s) * s.headDim;
}
