/**
 * Merges of attention states: in float64, in plain float32, and by the library.
 *
 * @module
 */

import type { AttentionWithLse, Device, DType } from "@kvasir/attention";
import { mergeStates } from "@kvasir/attention";
import type { DecodeAnswer } from "./decode.ts";
import { unitInTheLastPlace } from "./oracle.ts";
import { worstMiss } from "./gate.ts";
import { store, type Stored } from "./storage.ts";
import { normals, uniform } from "./values.ts";

/** Rows of states: v [rows, states, heads, headDim], s [rows, states, heads]. */
export interface MergeCase {
  readonly rows: number;
  readonly states: number;
  readonly heads: number;
  readonly headDim: number;
  readonly v: Stored;
  readonly s: Float32Array;
}

/** The sizes of a case, and how to draw it. */
export interface MergeSpec {
  readonly rows: number;
  readonly states: number;
  readonly heads: number;
  readonly headDim: number;
  /** float32. */
  readonly dtype?: DType;
  /** How far s lies apart; 8. */
  readonly range?: number;
  /** The share of states that are empty; 0. */
  readonly empty?: number;
  /** Of the drawn values; 1. */
  readonly seed?: number;
}

/** Draws a case. The v of empty states is NaN: nothing may look at it. */
export function drawStates(spec: MergeSpec): MergeCase {
  const { rows, states, heads, headDim, dtype = "float32", range = 8, empty = 0, seed = 1 } = spec;
  const next = uniform(seed + 77);
  const s = Float32Array.from(
    { length: rows * states * heads },
    () => next() < empty ? -Infinity : (next() - 0.5) * range,
  );
  const values = normals(s.length * headDim, seed);
  s.forEach((sum, i) => {
    if (sum === -Infinity) values.fill(NaN, i * headDim, (i + 1) * headDim);
  });
  return { rows, states, heads, headDim, v: store(values, dtype), s };
}

/** The merged states in float64, or as anyone would write it in float32. */
export function mergedStates(
  { rows, states, heads, headDim, v, s }: MergeCase,
  round: (x: number) => number = (x) => x,
): { readonly out: Float64Array; readonly lse: Float64Array } {
  const out = new Float64Array(rows * heads * headDim);
  const lse = new Float64Array(rows * heads).fill(-Infinity);
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < heads; head++) {
      const at = row * heads + head;
      const places = Array.from({ length: states }, (_, i) => (row * states + i) * heads + head)
        .filter((place) => s[place] !== -Infinity);
      if (places.length === 0) continue;
      const max = Math.max(...places.map((place) => s[place]));
      const weights = places.map((place) => round(2 ** round(s[place] - max)));
      const sum = weights.reduce((total, weight) => round(total + weight), 0);
      lse[at] = round(max + round(Math.log2(sum)));
      for (let d = 0; d < headDim; d++) {
        const total = places.reduce(
          (total, place, i) => round(total + round(weights[i] * v.values[place * headDim + d])),
          0,
        );
        out[at * headDim + d] = round(total / sum);
      }
    }
  }
  return { out, lse };
}

/**
 * What is wrong with an answer, or null: every element within twice the error of plain float32 (the
 * largest of the call, and at least a unit in the last place), plus 1e-6, then rounded.
 */
export function mergeMiss(case_: MergeCase, answer: DecodeAnswer): string | null {
  const exact = mergedStates(case_);
  const plain = mergedStates(case_, Math.fround);
  for (const name of ["out", "lse"] as const) {
    const dtype = name === "out" ? case_.v.dtype : "float32";
    let error = 0;
    exact[name].forEach((x, i) => {
      if (Number.isFinite(x)) {
        error = Math.max(error, Math.abs(x - plain[name][i]), unitInTheLastPlace(x));
      }
    });
    if (answer[name].length !== exact[name].length) return `${answer[name].length} of ${name}`;
    const miss = worstMiss(answer[name], exact[name], () => 2 * error + 1e-6, dtype);
    if (miss) return `${name}: ${JSON.stringify(miss)}`;
  }
  return null;
}

/** Merges all states of a case by the library. */
export async function runMergeStates(device: Device, c: MergeCase): Promise<DecodeAnswer> {
  const shape = [c.rows, c.states, c.heads];
  using v = device.tensorFromBytes(c.v.bytes, [...shape, c.headDim], c.v.dtype);
  using s = device.tensor(c.s, shape, "float32");
  return await readState(await mergeStates(v, s));
}

/** Reads a state and frees it. */
export async function readState(
  state: AttentionWithLse,
): Promise<DecodeAnswer> {
  using out = state.out;
  using lse = state.lse;
  return { out: await out.read(), lse: await lse.read() };
}

/** The states of one index of a case, as a case of one state a row. */
export function stateOf(c: MergeCase, index: number): MergeCase {
  const size = c.heads * c.headDim;
  const bytesEach = c.v.bytes.length / Math.max(1, c.v.values.length);
  const values = new Float32Array(c.rows * size);
  const bytes = new Uint8Array(values.length * bytesEach);
  const s = new Float32Array(c.rows * c.heads);
  for (let row = 0; row < c.rows; row++) {
    const from = row * c.states + index;
    values.set(c.v.values.subarray(from * size, (from + 1) * size), row * size);
    bytes.set(
      c.v.bytes.subarray(from * size * bytesEach, (from + 1) * size * bytesEach),
      row * size * bytesEach,
    );
    s.set(c.s.subarray(from * c.heads, (from + 1) * c.heads), row * c.heads);
  }
  return { ...c, states: 1, v: { dtype: c.v.dtype, bytes, values }, s };
}
