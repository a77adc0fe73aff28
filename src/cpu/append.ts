/**
 * Appending to a paged cache in the WASM memory: the crate's codec converts rows, and what keys and
 * values are multiplied with or turned by is done here between two conversions, as are scales of tokens.
 *
 * @module
 */

import { type AppendProblem, SLOT_WORDS } from "../append_problem.ts";
import type { CacheStrides, RopeParameters } from "../attention_problem.ts";
import { bytesPerElement, type DType, type Fp8DType } from "../dtype.ts";
import { largestMagnitude, rowScale } from "../row_scale.ts";
import { WASM_DTYPE, type WasmInstance } from "./wasm_module.ts";

/** Blocks of WASM memory that one append works on. */
export interface AppendHandles {
  readonly key: number;
  readonly value: number;
  readonly k: number;
  /** k's where v lies in it. */
  readonly v: number;
  /** 0 where tokens have no scales. */
  readonly kvScales: number;
}

/** Keys or values: where they come from, where they go, and what is done on the way. */
interface Part {
  readonly source: number;
  readonly target: number;
  readonly headDim: number;
  /** As which it is stored. */
  readonly stored: DType;
  readonly strides: CacheStrides;
  /** Where the cache begins in its block, in elements. */
  readonly offset: number;
  readonly factors: Float32Array | null;
  readonly rope: RopeParameters | null;
  /** The block with the scales of its rows, and which of each pair they are; null where they have none. */
  readonly scales: { readonly block: number; readonly part: 0 | 1 } | null;
}

/** Carries out an append. */
export function appendRows(
  instance: WasmInstance,
  problem: AppendProblem,
  handles: AppendHandles,
): void {
  const { headDim, headDimV, kStrides, vStrides, vOffset, kFactors, vFactors, rope } = problem;
  const scalesOf = (part: 0 | 1) => problem.kvScales && { block: handles.kvScales, part };
  appendPart(instance, problem, {
    source: handles.key,
    target: handles.k,
    headDim,
    stored: problem.kDtype,
    strides: kStrides,
    offset: 0,
    factors: kFactors,
    rope,
    scales: scalesOf(0),
  });
  appendPart(instance, problem, {
    source: handles.value,
    target: handles.v,
    headDim: headDimV,
    stored: problem.vDtype,
    strides: vStrides,
    offset: vOffset ?? 0,
    factors: vFactors,
    rope: null,
    scales: scalesOf(1),
  });
}

function appendPart(instance: WasmInstance, problem: AppendProblem, part: Part): void {
  const { numTokens, numKvHeads, dtype, slots } = problem;
  const { source, headDim, rope, scales } = part;
  const rowElements = numKvHeads * headDim;
  const sourceBytes = rowElements * bytesPerElement(dtype);
  if (part.factors === null && rope === null && scales === null) {
    for (let token = 0; token < numTokens; token++) {
      storeToken(instance, problem, part, token, source, token * sourceBytes, dtype);
    }
    return;
  }
  const scratch = instance.allocate(rowElements * 4, "the rows in float32");
  try {
    const bytes = instance.view(scratch, rowElements * 4);
    const row = new Float32Array(bytes.buffer, bytes.byteOffset, rowElements);
    const frequencies = rope && frequenciesOf(headDim, rope);
    const turns = new Float64Array(headDim);
    for (let token = 0; token < numTokens; token++) {
      const from = token * sourceBytes;
      convert(instance, [source, from, dtype], [scratch, 0, "float32"], rowElements);
      if (frequencies) {
        setTurns(turns, slots[token * SLOT_WORDS + 2], frequencies);
        turnRow(row, turns);
      }
      if (part.factors) multiplyRow(row, headDim, part.factors);
      if (scales) multiplyRow(row, headDim, ownFactors(instance, problem, part, token, row));
      storeToken(instance, problem, part, token, scratch, 0, "float32");
    }
  } finally {
    instance.free(scratch);
  }
}

/** Stores all heads of a token, which lie at byte `from` of a block. */
function storeToken(
  instance: WasmInstance,
  { numKvHeads, slots }: AppendProblem,
  { target, headDim, stored, strides, offset }: Part,
  token: number,
  block: number,
  from: number,
  dtype: DType,
): void {
  const [page, place] = slots.subarray(token * SLOT_WORDS, (token + 1) * SLOT_WORDS);
  const first = offset + page * strides.page + place * strides.token;
  // In NHD the heads of a token lie one after another.
  const isWhole = strides.head === headDim;
  const [runs, elements] = isWhole ? [1, numKvHeads * headDim] : [numKvHeads, headDim];
  for (let run = 0; run < runs; run++) {
    const to = (first + run * strides.head) * bytesPerElement(stored);
    const source = from + run * elements * bytesPerElement(dtype);
    convert(instance, [block, source, dtype], [target, to, stored], elements);
  }
}

type Place = readonly [handle: number, byteOffset: number, dtype: DType];

/** Converts elements, saturating FP8; of one dtype to itself, copies bytes. */
export function convert(
  instance: WasmInstance,
  [source, sourceOffset, from]: Place,
  [target, targetOffset, to]: Place,
  count: number,
): void {
  if (from === to) {
    const byteLength = count * bytesPerElement(from);
    instance.view(target, byteLength, targetOffset)
      .set(instance.view(source, byteLength, sourceOffset));
    return;
  }
  const status = instance.exports.convert(
    source,
    sourceOffset,
    WASM_DTYPE[from],
    target,
    targetOffset,
    WASM_DTYPE[to],
    count,
    1,
  );
  instance.check("convert", status);
}

/** How far each pair of dims turns from one position to the next. */
function frequenciesOf(headDim: number, { scale, theta }: RopeParameters): Float64Array {
  return Float64Array.from({ length: headDim / 2 }, (_, i) => theta ** (-2 * i / headDim) / scale);
}

/** Sets cosines, then sines, of the turns at a position. */
function setTurns(turns: Float64Array, position: number, frequencies: Float64Array): void {
  const half = frequencies.length;
  for (let i = 0; i < half; i++) {
    turns[i] = Math.fround(Math.cos(position * frequencies[i]));
    turns[half + i] = Math.fround(Math.sin(position * frequencies[i]));
  }
}

/** Turns dims i and half a head further of every head; rounds once. */
function turnRow(row: Float32Array, turns: Float64Array): void {
  const half = turns.length / 2;
  for (let at = 0; at < row.length; at += 2 * half) {
    for (let i = at; i < at + half; i++) {
      const lower = row[i];
      const upper = row[half + i];
      const cosine = turns[i - at];
      const sine = turns[half + i - at];
      row[i] = lower * cosine - upper * sine;
      row[half + i] = upper * cosine + lower * sine;
    }
  }
}

/** What each head of a token is multiplied with by its own scale, which is stored. */
function ownFactors(
  instance: WasmInstance,
  { slots, kvScales: strides }: AppendProblem,
  { scales, headDim, stored }: Part,
  token: number,
  row: Float32Array,
): Float32Array {
  const [page, place] = slots.subarray(token * SLOT_WORDS, (token + 1) * SLOT_WORDS);
  const factors = new Float32Array(row.length / headDim);
  for (let head = 0; head < factors.length; head++) {
    const ofHead = row.subarray(head * headDim, (head + 1) * headDim);
    const { factor, scale } = rowScale(largestMagnitude(ofHead), stored as Fp8DType);
    factors[head] = factor;
    const pair = page * strides!.page + head * strides!.head + place;
    const bytes = instance.view(scales!.block, 4, (2 * pair + scales!.part) * 4);
    new DataView(bytes.buffer, bytes.byteOffset).setFloat32(0, scale, true);
  }
  return factors;
}

function multiplyRow(row: Float32Array, headDim: number, factors: Float32Array): void {
  factors.forEach((factor, head) => {
    for (let i = head * headDim; i < (head + 1) * headDim; i++) row[i] *= factor;
  });
}
