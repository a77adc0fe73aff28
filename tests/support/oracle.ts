/**
 * Attention twice: in float64, which judges, and in plain float32, which says how much error a
 * straightforward computation makes. Both are one text, with a rounding after every operation that
 * is the identity for float64. Nothing is shared with the library.
 *
 * @module
 */

import { type RopeSpeed, rotate, slopesOf } from "./positions.ts";

/** One number for all heads, or one for each. */
export type PerHead = number | readonly number[];

/** The library's options that change what is computed, under their names and with their defaults. */
export interface AttentionOptions {
  readonly posEncodingMode?: "NONE" | "ROPE_LLAMA" | "ALIBI";
  readonly ropeScale?: number;
  readonly ropeTheta?: number;
  readonly smScale?: number;
  /** For each query head. */
  readonly qScale?: PerHead;
  /** For each KV head, as is vScale. */
  readonly kScale?: PerHead;
  readonly vScale?: PerHead;
  readonly windowLeft?: number;
  readonly logitsSoftCap?: number;
  /** For each query head. */
  readonly sinks?: readonly number[];
  readonly lseBase?: "log2" | "ln";
}

/** The names of {@linkcode AttentionOptions}. */
export const OPTION_NAMES: readonly (keyof AttentionOptions)[] = [
  "posEncodingMode",
  "ropeScale",
  "ropeTheta",
  "smScale",
  "qScale",
  "kScale",
  "vScale",
  "windowLeft",
  "logitsSoftCap",
  "sinks",
  "lseBase",
];

/** What is to be computed, on decoded values. */
export interface AttentionCase extends AttentionOptions {
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
  /** [numRequests, numQueries, numQoHeads, headDim]. */
  readonly q: ArrayLike<number>;
  /** [numRequests, maxKvLen, numKvHeads, headDim] in NHD; HND swaps the middle two. */
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
}

/** out [numRequests, numQueries, numQoHeads, headDim]; lse without the headDim. */
export interface AttentionResult {
  readonly out: Float64Array;
  readonly lse: Float64Array;
  /**
   * For each row of out: how far the output's and the lse's numbers move when logits move by a unit
   * in the last place that a float32 of the size of the largest has.
   */
  readonly outUnits: Float64Array;
  readonly lseUnits: Float64Array;
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

/** The number of a head. */
export function ofHead(values: PerHead | undefined, head: number): number {
  return (typeof values === "object" ? values[head] : values) ?? 1;
}

/** Where a query stands: the last one stands at the last key. */
function positionOf(c: AttentionCase, request: number, query: number): number {
  return kvLenOf(c, request) - (c.numQueries ?? 1) + query;
}

function kvLenOf(c: AttentionCase, request: number): number {
  return c.kvLens?.[request] ?? c.maxKvLen;
}

/** The keys that a query sees, from the first up to the end. */
function visibleKeys(c: AttentionCase, request: number, query: number): [number, number] {
  const position = positionOf(c, request, query);
  const { causal, windowLeft = -1 } = c;
  const end = causal ? Math.max(0, position + 1) : kvLenOf(c, request);
  return [Math.min(end, windowLeft < 0 ? 0 : Math.max(0, position - windowLeft)), end];
}

/** What turns a query or a key that stands at a position. */
function turner(
  { posEncodingMode, ropeScale: scale = 1, ropeTheta: theta = 1e4 }: AttentionCase,
  round: (x: number) => number,
): (row: Float64Array, position: number) => Float64Array {
  if (posEncodingMode !== "ROPE_LLAMA") return (row) => row;
  const speed: RopeSpeed = { scale, theta };
  return (row, position) => rotate(row, position, speed, round);
}

function attention(c: AttentionCase, round: (x: number) => number): AttentionResult {
  const { numRequests, numQoHeads, headDim, q, k, v, logitsSoftCap: cap, sinks } = c;
  const numQueries = c.numQueries ?? 1;
  const groupSize = numQoHeads / c.numKvHeads;
  const smScale = c.smScale ?? 1 / Math.sqrt(headDim);
  const slopes = c.posEncodingMode === "ALIBI" ? slopesOf(numQoHeads).map(round) : null;
  const turn = turner(c, round);
  const read = (x: ArrayLike<number>, start: number, row: Float64Array) => {
    for (let d = 0; d < headDim; d++) row[d] = x[start + d];
    return row;
  };
  const keyRow = new Float64Array(headDim);
  const rows = numRequests * numQueries * numQoHeads;
  const out = new Float64Array(rows * headDim);
  const lse = new Float64Array(rows);
  const outUnits = new Float64Array(rows);
  const lseUnits = new Float64Array(rows);
  const weights = new Float64Array(c.maxKvLen);
  const spread = new Float64Array(headDim);

  for (let row = 0; row < rows; row++) {
    const head = row % numQoHeads;
    const query = Math.floor(row / numQoHeads) % numQueries;
    const request = Math.floor(row / (numQoHeads * numQueries));
    const kvHead = Math.floor(head / groupSize);
    const position = positionOf(c, request, query);
    const [first, end] = visibleKeys(c, request, query);
    const scale = round(smScale * ofHead(c.qScale, head) * ofHead(c.kScale, kvHead));
    const turnedQuery = turn(read(q, row * headDim, new Float64Array(headDim)), position);

    let max = sinks ? round(sinks[head]) : -Infinity;
    for (let j = first; j < end; j++) {
      const key = turn(read(k, cacheRow(c, request, j, kvHead), keyRow), j);
      let dot = 0;
      for (let d = 0; d < headDim; d++) dot = round(dot + round(turnedQuery[d] * key[d]));
      let logit = round(dot * scale);
      if (slopes) logit = round(logit + round(slopes[head] * (j - position)));
      if (cap) logit = round(round(cap) * round(Math.tanh(round(logit / round(cap)))));
      weights[j] = logit;
      max = Math.max(max, logit);
    }

    let sum = sinks ? round(Math.exp(round(round(sinks[head]) - max))) : 0;
    for (let j = first; j < end; j++) {
      weights[j] = round(Math.exp(round(weights[j] - max)));
      sum = round(sum + weights[j]);
    }

    const lse2 = round(round(max * round(Math.LOG2E)) + round(Math.log2(sum)));
    const isEmpty = first === end && !sinks;
    lse[row] = isEmpty ? -Infinity : c.lseBase === "ln" ? round(lse2 * round(Math.LN2)) : lse2;
    for (let j = first; j < end; j++) {
      const value = cacheRow(c, request, j, kvHead);
      for (let d = 0; d < headDim; d++) {
        out[row * headDim + d] = round(out[row * headDim + d] + round(weights[j] * v[value + d]));
      }
    }
    // An empty row has no sum to divide by: its answer is 0.
    if (first === end) continue;
    const vScale = round(ofHead(c.vScale, kvHead));
    for (let d = 0; d < headDim; d++) {
      out[row * headDim + d] = round(round(out[row * headDim + d] / sum) * vScale);
    }

    spread.fill(0);
    for (let j = first; j < end; j++) {
      const value = cacheRow(c, request, j, kvHead);
      for (let d = 0; d < headDim; d++) {
        spread[d] += weights[j] / sum * Math.abs(v[value + d] * vScale - out[row * headDim + d]);
      }
    }
    outUnits[row] = unitInTheLastPlace(max) * Math.max(...spread);
    lseUnits[row] = unitInTheLastPlace(max) * (c.lseBase === "ln" ? 1 : Math.LOG2E);
  }
  return { out, lse, outUnits, lseUnits };
}

/** The distance of neighbouring float32 at `x`. */
export function unitInTheLastPlace(x: number): number {
  return 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(x)))) - 23);
}
