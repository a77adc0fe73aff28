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
  /** One for all, or one for each query head (q) or KV head (k, v). */
  readonly qScale?: number | readonly number[];
  readonly kScale?: number | readonly number[];
  readonly vScale?: number | readonly number[];
  /** Masks key j for a query at p where j < p - windowLeft. */
  readonly windowLeft?: number;
  /** cap · tanh(logit / cap). */
  readonly logitsSoftCap?: number;
  /** One logit a query head, in the denominator only. */
  readonly sinks?: readonly number[];
  /** Turns dims i and i + D/2 by position · theta^(-2i/D) / scale. */
  readonly rope?: { readonly scale: number; readonly theta: number };
  /** Adds slope · (key's position - query's). */
  readonly alibi?: boolean;
  /** What lse is multiplied with, from base 2: ln 2 for natural logarithms. */
  readonly lseScale?: number;
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

/** The slope of a head, by the rule of the paper's own program: recursion over powers of two. */
export function alibiSlope(head: number, heads: number): number {
  const power = 2 ** Math.floor(Math.log2(heads));
  if (head < power) return 2 ** (-(8 / power) * (head + 1));
  // The rest are the even ones of twice as many.
  return alibiSlope(2 * (head - power), 2 * power);
}

const at = (scale: number | readonly number[] | undefined, head: number) =>
  typeof scale === "object" ? scale[head] : scale ?? 1;

function attention(c: AttentionCase, round: (x: number) => number): AttentionResult {
  const { numRequests, numQoHeads, headDim, q, k, v } = c;
  const numQueries = c.numQueries ?? 1;
  const groupSize = numQoHeads / c.numKvHeads;
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
    const position = query + kvLen - numQueries;
    const numKeys = c.causal ? Math.max(0, position + 1) : kvLen;
    const firstKey = c.windowLeft === undefined ? 0 : Math.max(0, position - c.windowLeft);
    const factor = at(c.qScale, head) * at(c.kScale, kvHead);
    const smScale = round(round(c.smScale ?? 1 / Math.sqrt(headDim)) * round(factor));
    const vScale = round(at(c.vScale, kvHead));
    const turned = rotated(c, q, row * headDim, position, round);

    let max = c.sinks ? round(c.sinks[head]) : -Infinity;
    for (let j = firstKey; j < numKeys; j++) {
      const key = rotated(c, k, cacheRow(c, request, j, kvHead), j, round);
      let dot = 0;
      for (let d = 0; d < headDim; d++) dot = round(dot + round(turned[d] * key[d]));
      let logit = round(dot * smScale);
      if (c.alibi) {
        const slope = round(alibiSlope(head, numQoHeads));
        logit = round(logit + round(slope * (j - position)));
      }
      if (c.logitsSoftCap) {
        logit = round(c.logitsSoftCap * round(Math.tanh(round(logit / c.logitsSoftCap))));
      }
      weights[j] = logit;
      max = Math.max(max, logit);
    }

    let sum = c.sinks ? round(Math.exp(round(round(c.sinks[head]) - max))) : 0;
    for (let j = firstKey; j < numKeys; j++) {
      weights[j] = round(Math.exp(round(weights[j] - max)));
      sum = round(sum + weights[j]);
    }

    const isEmpty = numKeys <= firstKey;
    lse[row] = isEmpty && !c.sinks
      ? -Infinity
      : round(round(round(max * round(Math.LOG2E)) + round(Math.log2(sum))) * (c.lseScale ?? 1));
    for (let j = firstKey; j < numKeys; j++) {
      const value = cacheRow(c, request, j, kvHead);
      for (let d = 0; d < headDim; d++) {
        out[row * headDim + d] = round(out[row * headDim + d] + round(weights[j] * v[value + d]));
      }
    }
    // An empty row has no sum to divide by: its answer is 0.
    if (isEmpty) continue;
    for (let d = 0; d < headDim; d++) {
      out[row * headDim + d] = round(round(out[row * headDim + d] / sum) * vScale);
    }
  }
  return { out, lse };
}

/** A row of q or k, turned for its position where the case has rotary encoding. */
function rotated(
  c: AttentionCase,
  values: ArrayLike<number>,
  start: number,
  position: number,
  round: (x: number) => number,
): ArrayLike<number> {
  const row = new Float64Array(c.headDim);
  for (let d = 0; d < c.headDim; d++) row[d] = values[start + d];
  if (!c.rope) return row;
  const half = c.headDim / 2;
  for (let i = 0; i < half; i++) {
    const frequency = round(round(c.rope.theta ** (-2 * i / c.headDim)) / c.rope.scale);
    const angle = round(position * frequency);
    const cosine = round(Math.cos(angle));
    const sine = round(Math.sin(angle));
    const [low, high] = [row[i], row[half + i]];
    row[i] = round(round(low * cosine) - round(high * sine));
    row[half + i] = round(round(high * cosine) + round(low * sine));
  }
  return row;
}
