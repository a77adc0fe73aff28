/**
 * Attention twice: in float64, which judges, and in plain float32, which says how much error a
 * straightforward computation makes. Both are one text, with a rounding after every operation that
 * is the identity for float64. Nothing is shared with the library.
 *
 * @module
 */

/** What is to be computed, on decoded values. */
export interface AttentionCase {
  readonly numRequests: number;
  /** Queries a request; decode has 1. */
  readonly numQueries?: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Tokens that k and v have room for. */
  readonly maxKvLen: number;
  /** Keys of each request; all `maxKvLen` where left out. */
  readonly kvLens?: readonly number[];
  readonly kvLayout: "NHD" | "HND";
  /** Masks key j for query i where j > i + kvLen - numQueries. */
  readonly causal?: boolean;
  readonly smScale?: number;
  readonly kScale?: number;
  readonly vScale?: number;
  /** [numRequests, numQueries, numQoHeads, headDim]. */
  readonly q: ArrayLike<number>;
  /** [numRequests, maxKvLen, numKvHeads, headDim] in NHD; HND swaps the middle two. */
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
}

/** out [numRequests, numQueries, numQoHeads, headDim]; lse, base 2, without the headDim. */
export interface AttentionResult {
  readonly out: Float64Array;
  readonly lse: Float64Array;
}

/** Attention in float64. */
export function oracle(problem: AttentionCase): AttentionResult {
  return attention(problem, (x) => x);
}

/** Attention as anyone would write it in float32: every operation rounds, two passes. */
export function plainFloat32(problem: AttentionCase): AttentionResult {
  return attention(problem, Math.fround);
}

/** Where row (request, token, head) of k or v begins. */
export function cacheRow(
  c: Pick<AttentionCase, "kvLayout" | "maxKvLen" | "numKvHeads" | "headDim">,
  request: number,
  token: number,
  head: number,
): number {
  const row = c.kvLayout === "NHD"
    ? (request * c.maxKvLen + token) * c.numKvHeads + head
    : (request * c.numKvHeads + head) * c.maxKvLen + token;
  return row * c.headDim;
}

function attention(c: AttentionCase, round: (x: number) => number): AttentionResult {
  const { numRequests, numQoHeads, headDim, q, k, v } = c;
  const numQueries = c.numQueries ?? 1;
  const groupSize = numQoHeads / c.numKvHeads;
  const smScale = round(round(c.smScale ?? 1 / Math.sqrt(headDim)) * round(c.kScale ?? 1));
  const vScale = round(c.vScale ?? 1);
  const rows = numRequests * numQueries * numQoHeads;
  const out = new Float64Array(rows * headDim);
  const lse = new Float64Array(rows);
  const weights = new Float64Array(c.maxKvLen);

  for (let row = 0; row < rows; row++) {
    const head = row % numQoHeads;
    const query = Math.floor(row / numQoHeads) % numQueries;
    const request = Math.floor(row / (numQoHeads * numQueries));
    const kvHead = Math.floor(head / groupSize);
    const kvLen = c.kvLens?.[request] ?? c.maxKvLen;
    const numKeys = c.causal ? Math.max(0, query + kvLen - numQueries + 1) : kvLen;

    let max = -Infinity;
    for (let j = 0; j < numKeys; j++) {
      const key = cacheRow(c, request, j, kvHead);
      let dot = 0;
      for (let d = 0; d < headDim; d++) dot = round(dot + round(q[row * headDim + d] * k[key + d]));
      weights[j] = round(dot * smScale);
      max = Math.max(max, weights[j]);
    }

    let sum = 0;
    for (let j = 0; j < numKeys; j++) {
      weights[j] = round(Math.exp(round(weights[j] - max)));
      sum = round(sum + weights[j]);
    }

    lse[row] = numKeys === 0
      ? -Infinity
      : round(round(max * round(Math.LOG2E)) + round(Math.log2(sum)));
    for (let j = 0; j < numKeys; j++) {
      const value = cacheRow(c, request, j, kvHead);
      for (let d = 0; d < headDim; d++) {
        out[row * headDim + d] = round(out[row * headDim + d] + round(weights[j] * v[value + d]));
      }
    }
    // An empty row has no sum to divide by: its answer is 0.
    if (numKeys === 0) continue;
    for (let d = 0; d < headDim; d++) {
      out[row * headDim + d] = round(round(out[row * headDim + d] / sum) * vScale);
    }
  }
  return { out, lse };
}
