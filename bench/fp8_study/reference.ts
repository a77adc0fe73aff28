/**
 * Decode in float64, and how far a cache's attention is from it.
 *
 * @module
 */

import type { Inputs } from "./inputs.ts";

/** What float64 gives: out [Hq, D], logits [Hq, L] and their log-sum-exp [Hq], in natural units. */
export interface Reference {
  readonly out: Float64Array;
  readonly logits: Float64Array;
  readonly lse: Float64Array;
}

/** How far an output is from float64's; each head's error in units of that head's output (RMS). */
export interface Errors {
  /** Mean of the squares. */
  readonly noise: number;
  readonly mean: number;
  readonly max: number;
  /** Kullback-Leibler divergence of the attention weights from float64's, mean over heads, in nats. */
  readonly kl: number;
}

/** Logits and their log-sum-exp of one head. */
function headLogits(
  { length, numKvHeads, numQoHeads, headDim: dim }: Inputs,
  q: Float32Array,
  k: Float32Array,
  head: number,
  logits: Float64Array,
): number {
  const first = Math.floor(head / (numQoHeads / numKvHeads)) * length * dim;
  const row = Float64Array.from(q.subarray(head * dim, (head + 1) * dim));
  let max = -Infinity;
  for (let j = 0; j < length; j++) {
    let dot = 0;
    for (let d = 0; d < dim; d++) dot += row[d] * k[first + j * dim + d];
    logits[j] = dot / Math.sqrt(dim);
    max = Math.max(max, logits[j]);
  }
  let sum = 0;
  for (let j = 0; j < length; j++) sum += Math.exp(logits[j] - max);
  return max + Math.log(sum);
}

/** Attention in float64, of values as they are. */
export function reference(inputs: Inputs): Reference {
  const { length, numKvHeads, numQoHeads, headDim: dim, q, k, v } = inputs;
  const out = new Float64Array(numQoHeads * dim);
  const logits = new Float64Array(numQoHeads * length);
  const lse = new Float64Array(numQoHeads);
  for (let head = 0; head < numQoHeads; head++) {
    const own = logits.subarray(head * length, (head + 1) * length);
    lse[head] = headLogits(inputs, q, k, head, own);
    const first = Math.floor(head / (numQoHeads / numKvHeads)) * length * dim;
    for (let j = 0; j < length; j++) {
      const weight = Math.exp(own[j] - lse[head]);
      for (let d = 0; d < dim; d++) out[head * dim + d] += weight * v[first + j * dim + d];
    }
  }
  return { out, logits, lse };
}

/** Compares an output, and the weights that follow from the keys of its cache. */
export function errorsOf(
  inputs: Inputs,
  exact: Reference,
  { q, k, out }: { q: Float32Array; k: Float32Array; out: Float32Array },
): Errors {
  const { length, numQoHeads, headDim: dim } = inputs;
  let [squares, sum, max, kl] = [0, 0, 0, 0];
  const logits = new Float64Array(length);
  for (let head = 0; head < numQoHeads; head++) {
    const want = exact.out.subarray(head * dim, (head + 1) * dim);
    const size = Math.sqrt(want.reduce((total, x) => total + x * x, 0) / dim);
    want.forEach((x, d) => {
      const error = Math.abs(out[head * dim + d] - x) / size;
      squares += error * error;
      sum += error;
      max = Math.max(max, error);
    });
    const lse = headLogits(inputs, q, k, head, logits);
    const own = exact.logits.subarray(head * length, (head + 1) * length);
    for (let j = 0; j < length; j++) {
      const logWeight = own[j] - exact.lse[head];
      kl += Math.exp(logWeight) * (logWeight - (logits[j] - lse));
    }
  }
  const count = numQoHeads * dim;
  // Below 0 by rounding only.
  const drift = Math.max(0, kl / numQoHeads);
  return { noise: squares / count, mean: sum / count, max, kl: drift };
}

/** The errors of several trials as those of one. */
export function together(trials: readonly Errors[]): Errors {
  const mean = (of: (errors: Errors) => number) =>
    trials.reduce((sum, errors) => sum + of(errors), 0) / trials.length;
  return {
    noise: mean(({ noise }) => noise),
    mean: mean((errors) => errors.mean),
    max: Math.max(...trials.map(({ max }) => max)),
    kl: mean(({ kl }) => kl),
  };
}

/** Signal to noise of an output, in dB. */
export function decibels({ noise }: Errors): number {
  return -10 * Math.log10(noise);
}
