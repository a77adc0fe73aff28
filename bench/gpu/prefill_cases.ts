/**
 * The prefill problems that are timed, and what they have to move and to compute.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import { bytesPerElement } from "../../src/dtype.ts";
import type { BenchShape } from "../results.ts";

/** A causal prefill problem of one request. */
export interface PrefillProblem {
  readonly shape: BenchShape;
  /** The cache's; q and out are float16. */
  readonly dtype: DType;
}

/** A causal prefill of one request. */
export function prefillShape(
  tokens: number,
  numQoHeads: number,
  numKvHeads: number,
  headDim: number = 128,
): BenchShape {
  return { batch: 1, qoLen: tokens, kvLen: tokens, numQoHeads, numKvHeads, headDim };
}

const LLAMA = prefillShape(4096, 32, 8);

/** Prompts of every group, lengths, dtypes, head dims; short queries on a long cache; a window. */
export const PREFILL_PROBLEMS: readonly PrefillProblem[] = [
  ...[4, 1, 2, 3, 5, 6, 7, 8].map((group) => prefillShape(4096, 8 * group, 8)),
  prefillShape(1024, 32, 8),
  prefillShape(1024, 24, 8),
  prefillShape(8192, 32, 8),
  { ...LLAMA, qoLen: 16, kvLen: 32_768 },
  { ...LLAMA, qoLen: 4, kvLen: 32_768 },
  { ...prefillShape(16_384, 32, 8), windowLeft: 1023 },
  prefillShape(4096, 32, 8, 64),
  prefillShape(4096, 32, 8, 256),
  { ...prefillShape(4096, 32, 8, 192), headDimV: 128 },
].map((shape): PrefillProblem => ({ shape, dtype: "float16" })).concat(
  (["float8_e4m3fn", "float8_e5m2", "bfloat16"] as const).map((dtype) => ({ shape: LLAMA, dtype })),
  [{ shape: { ...LLAMA, qoLen: 16, kvLen: 32_768 }, dtype: "float8_e4m3fn" }],
  [16, 1].flatMap((pageSize) =>
    (["float16", "float8_e4m3fn"] as const).map((dtype) => ({
      shape: { ...LLAMA, pageSize },
      dtype,
    }))
  ),
);

/** For software adapters. */
export const SMALL_PREFILL_PROBLEMS: readonly PrefillProblem[] = [
  { shape: prefillShape(64, 6, 2, 64), dtype: "float16" },
  { shape: { ...prefillShape(64, 6, 2, 64), qoLen: 5 }, dtype: "float8_e4m3fn" },
  { shape: { ...prefillShape(64, 6, 2, 64), pageSize: 16 }, dtype: "float16" },
];

/** Pairs of a query and a key that it sees. */
function pairs({ batch, qoLen, kvLen, windowLeft = Infinity }: BenchShape): number {
  let count = 0;
  for (let position = kvLen - qoLen; position < kvLen; position++) {
    count += Math.min(position, windowLeft) + 1;
  }
  return batch * count;
}

/** Bytes that prefill has to move: q, k, v and out. */
export function prefillBytes(s: BenchShape, dtype: DType = "float16"): number {
  const dims = s.headDim + (s.headDimV ?? s.headDim);
  return s.batch * dims *
    (2 * s.qoLen * s.numQoHeads + bytesPerElement(dtype) * s.kvLen * s.numKvHeads);
}

/** Operations of causal prefill on the pairs that count, as FlashInfer counts them but for halves. */
export function prefillFlops(s: BenchShape): number {
  return 2 * pairs(s) * s.numQoHeads * (s.headDim + (s.headDimV ?? s.headDim));
}
