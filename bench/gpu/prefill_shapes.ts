/**
 * The prefill problems: causal, one request, as the peers measure them (bench/peers/). There is no
 * prefill kernel on WebGPU yet; its family will time these.
 *
 * @module
 */

import type { BenchShape } from "../results.ts";

/** A causal prefill of one request. */
export function prefillShape(
  tokens: number,
  numQoHeads: number,
  numKvHeads: number,
  headDim: number = 128,
): BenchShape {
  return { batch: 1, qoLen: tokens, kvLen: tokens, numQoHeads, numKvHeads, headDim };
}

/** Bytes that prefill in float16 has to move: q, k, v and out. */
export function prefillBytes(s: BenchShape): number {
  return 2 * 2 * s.batch * s.headDim * (s.qoLen * s.numQoHeads + s.kvLen * s.numKvHeads);
}

/** Operations of causal prefill, as FlashInfer counts them. */
export function prefillFlops(s: BenchShape): number {
  return 2 * s.batch * s.qoLen * (2 * s.kvLen - s.qoLen) * s.numQoHeads * s.headDim;
}
