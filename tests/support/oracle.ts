/**
 * Attention twice: in float64, which judges, and in plain float32, which says how much error a
 * straightforward computation makes. Both are one text, with a rounding after every operation that
 * is the identity for float64. Nothing is shared with the library.
 *
 * @module
 */

import { type RopeSpeed, rotate, slopesOf } from "./positions.ts";
import { scaleIndex } from "./token_scales.ts";

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
  readonly outScale?: number;
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
  "outScale",
  "windowLeft",
  "logitsSoftCap",
  "sinks",
  "lseBase",
];

/** What is to be computed, on decoded values. */
export interface AttentionCase extends AttentionOptions {
  readonly numRequests: number;
  /** Queries that q has room for in each request; decode has 1. */
  readonly numQueries?: number;
  /** Queries of each request; all `numQueries` where left out. Rows behind them: 0, and -Infinity. */
  readonly qoLens?: readonly number[];
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Of v and out; `headDim` where left out. */
  readonly headDimV?: number;
  /** Tokens that k and v have room for. */
  readonly maxKvLen: number;
  /** Keys of each request; all `maxKvLen` where left out. */
  readonly kvLens?: readonly number[];
  readonly kvLayout: "NHD" | "HND";
  /** Masks key j for query i where j > i + kvLen - qoLen. */
  readonly causal?: boolean;
  /** [numRequests, numQueries, maxKvLen]: whether a query sees a key. It replaces `causal`. */
  readonly mask?: ArrayLike<boolean>;
  /** [numRequests, numQueries, numQoHeads, headDim]. */
  readonly q: ArrayLike<number>;
  /** [numRequests, maxKvLen, numKvHeads, headDim] in NHD; HND swaps the middle two. */
  readonly k: ArrayLike<number>;
  /** The same with headDimV. */
  readonly v: ArrayLike<number>;
  /**
   * [numRequests, numKvHeads, maxKvLen, 2], what each row of k, and of v, is multiplied with; 1 where left
   * out.
   */
  readonly kvScales?: Float32Array;
}

/** out [numRequests, numQueries, numQoHeads, headDimV]; lse without the headDimV. */
export interface AttentionResult {
  readonly out: Float64Array;
  readonly lse: Float64Array;
  /**
   * For each row of out: how far the output's and the lse's numbers move when logits move by a unit
   * in the last place that a float32 of the size of the largest has, or, on the weighted mean, by one
   * of the largest sum that a logit's dot product passes through.
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

/** Where row (request, token, head) of k begins, or of v, whose head dim may be another. */
export function cacheRow(
  c: Pick<AttentionCase, "kvLayout" | "maxKvLen" | "numKvHeads" | "headDim">,
  request: number,
  token: number,
  head: number,
  headDim: number = c.headDim,
): number {
  const row = c.kvLayout === "NHD"
    ? (request * c.maxKvLen + token) * c.numKvHeads + head
    : (request * c.numKvHeads + head) * c.maxKvLen + token;
  return row * headDim;
}

/** The number of a head. */
export function ofHead(values: PerHead | undefined, head: number): number {
  return (typeof values === "object" ? values[head] : values) ?? 1;
}

/** What a key's row (part 0) or its value's (part 1) is multiplied with. */
function tokenScale(
  c: AttentionCase,
  request: number,
  part: number,
  head: number,
  token: number,
): number {
  return c.kvScales ? c.kvScales[scaleIndex(c, request, part, head, token)] : 1;
}

/** Where a query stands: the last one stands at the last key. */
function positionOf(c: AttentionCase, request: number, query: number): number {
  return kvLenOf(c, request) - qoLenOf(c, request) + query;
}

function kvLenOf(c: AttentionCase, request: number): number {
  return c.kvLens?.[request] ?? c.maxKvLen;
}

function qoLenOf(c: AttentionCase, request: number): number {
  return c.qoLens?.[request] ?? c.numQueries ?? 1;
}

/** Whether a query sees a key that its request has. */
function sees(c: AttentionCase, request: number, query: number, key: number): boolean {
  const { causal, mask, windowLeft = -1 } = c;
  const position = positionOf(c, request, query);
  if (windowLeft >= 0 && key < position - windowLeft) return false;
  if (!mask) return !causal || key <= position;
  return mask[(request * (c.numQueries ?? 1) + query) * c.maxKvLen + key];
}

/** The keys that a query sees. */
function visibleKeys(c: AttentionCase, request: number, query: number): number[] {
  const keys: number[] = [];
  for (let key = 0; key < kvLenOf(c, request); key++) {
    if (sees(c, request, query, key)) keys.push(key);
  }
  return keys;
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
  const headDimV = c.headDimV ?? headDim;
  const read = (x: ArrayLike<number>, start: number, row: Float64Array) => {
    for (let d = 0; d < headDim; d++) row[d] = x[start + d];
    return row;
  };
  const keyRow = new Float64Array(headDim);
  const rows = numRequests * numQueries * numQoHeads;
  const out = new Float64Array(rows * headDimV);
  const lse = new Float64Array(rows);
  const outUnits = new Float64Array(rows);
  const lseUnits = new Float64Array(rows);
  const weights = new Float64Array(c.maxKvLen);
  const logitUnits = new Float64Array(c.maxKvLen);
  const spread = new Float64Array(headDimV);

  for (let row = 0; row < rows; row++) {
    const head = row % numQoHeads;
    const query = Math.floor(row / numQoHeads) % numQueries;
    const request = Math.floor(row / (numQoHeads * numQueries));
    const kvHead = Math.floor(head / groupSize);
    const position = positionOf(c, request, query);
    if (query >= qoLenOf(c, request)) {
      lse[row] = -Infinity;
      continue;
    }
    const keys = visibleKeys(c, request, query);
    const scale = round(smScale * ofHead(c.qScale, head) * ofHead(c.kScale, kvHead));
    const turnedQuery = turn(read(q, row * headDim, new Float64Array(headDim)), position);

    let max = sinks ? round(sinks[head]) : -Infinity;
    for (const j of keys) {
      const key = turn(read(k, cacheRow(c, request, j, kvHead), keyRow), j);
      let dot = 0;
      const own = tokenScale(c, request, 0, kvHead, j);
      let passed = 0;
      for (let d = 0; d < headDim; d++) {
        dot = round(dot + round(turnedQuery[d] * key[d]));
        passed = Math.max(passed, Math.abs(dot));
      }
      logitUnits[j] = unitInTheLastPlace(passed * scale * own);
      let logit = round(round(dot * scale) * own);
      if (slopes) logit = round(logit + round(slopes[head] * (j - position)));
      if (cap) {
        const tangent = Math.tanh(round(logit / round(cap)));
        logit = round(round(cap) * round(tangent));
        logitUnits[j] *= 1 - tangent ** 2;
      }
      weights[j] = logit;
      max = Math.max(max, logit);
    }

    let sum = sinks ? round(Math.exp(round(round(sinks[head]) - max))) : 0;
    for (const j of keys) {
      weights[j] = round(Math.exp(round(weights[j] - max)));
      sum = round(sum + weights[j]);
    }

    const lse2 = round(round(max * round(Math.LOG2E)) + round(Math.log2(sum)));
    const isEmpty = keys.length === 0 && !sinks;
    lse[row] = isEmpty ? -Infinity : c.lseBase === "ln" ? round(lse2 * round(Math.LN2)) : lse2;
    for (const j of keys) {
      const value = cacheRow(c, request, j, kvHead, headDimV);
      const weight = round(weights[j] * tokenScale(c, request, 1, kvHead, j));
      for (let d = 0; d < headDimV; d++) {
        out[row * headDimV + d] = round(out[row * headDimV + d] + round(weight * v[value + d]));
      }
    }
    // An empty row has no sum to divide by: its answer is 0.
    if (keys.length === 0) continue;
    const vScale = round(ofHead(c.vScale, kvHead) / (c.outScale ?? 1));
    for (let d = 0; d < headDimV; d++) {
      out[row * headDimV + d] = round(round(out[row * headDimV + d] / sum) * vScale);
    }

    spread.fill(0);
    for (const j of keys) {
      const value = cacheRow(c, request, j, kvHead, headDimV);
      for (let d = 0; d < headDimV; d++) {
        const scaled = v[value + d] * vScale * tokenScale(c, request, 1, kvHead, j);
        spread[d] += weights[j] / sum * Math.abs(scaled - out[row * headDimV + d]);
      }
    }
    let mean = 0;
    for (const j of keys) mean += weights[j] / sum * logitUnits[j];
    const unit = Math.max(unitInTheLastPlace(max), mean);
    outUnits[row] = unit * Math.max(...spread);
    lseUnits[row] = unit * (c.lseBase === "ln" ? 1 : Math.LOG2E);
  }
  return { out, lse, outUnits, lseUnits };
}

/** The distance of neighbouring float32 at `x`. */
export function unitInTheLastPlace(x: number): number {
  return 2 ** (Math.max(-126, Math.floor(Math.log2(Math.abs(x)))) - 23);
}
