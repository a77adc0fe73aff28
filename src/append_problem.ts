/**
 * Appending to a paged cache: the description that both backends carry out, and the checks that make
 * one of a call's arguments. Pure.
 *
 * @module
 */

import type { CacheStrides, RopeParameters, ScaleStrides } from "./attention_problem.ts";
import { checkOneDtype, checkValue, type TensorSpec } from "./attention_shapes.ts";
import type { CachePages } from "./cache_pages.ts";
import { type DType, isFp8DType, type KvDTypes } from "./dtype.ts";
import { DTypeError, OptionError, ShapeError } from "./errors.ts";
import { checkList, checkPositive, checkScale, checkWord } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import { checkPageTable, isIntegerBelow, type PageArrays, type PageTable } from "./page_indices.ts";
import { show } from "./shape.ts";
import type { Tensor } from "./tensor.ts";
import { checkScalesTensor, scaleStrides, type WithScalesSpec } from "./token_scales.ts";

/** Words of one token in {@linkcode AppendProblem.slots}. */
export const SLOT_WORDS = 3;

/**
 * Rows that are to be written into a paged cache: pure numbers, no memory, no device.
 *
 * Appended keys are [token, head, headDim] in memory, values [token, head, headDimV]. A row goes to
 * element page·pageStride + place·tokenStride + head·headStride of the cache: keys are turned if
 * they are to be, then multiplied, each in float32, then rounded once, to nearest even; FP8
 * saturates. What a row is multiplied with is its head's factor, or where tokens have scales its own
 * ({@linkcode rowScale}), and its scale is written beside the cache. Rows that are neither turned nor multiplied keep their bits where the dtypes are one.
 */
export interface AppendProblem {
  readonly numTokens: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly headDimV: number;
  /** Of the appended rows. */
  readonly dtype: DType;
  /** Of the cache. */
  readonly kDtype: DType;
  readonly vDtype: DType;
  readonly numPages: number;
  /** Three words a token: its page, its place in the page, and its position in its request. */
  readonly slots: Uint32Array<ArrayBuffer>;
  /** A page's elements, of k or v, lie within one page stride from its first. */
  readonly kStrides: CacheStrides;
  readonly vStrides: CacheStrides;
  /** Where v begins in k's tensor, in elements; null where v has a tensor of its own. */
  readonly vOffset: number | null;
  /** What each head is multiplied with; null is 1 for all. */
  readonly kFactors: Float32Array<ArrayBuffer> | null;
  readonly vFactors: Float32Array<ArrayBuffer> | null;
  /** Where the scales of tokens go, in an FP8 cache without factors; null is none. */
  readonly kvScales: ScaleStrides | null;
  /** Rotary encoding of the keys, each at its position; null is none. */
  readonly rope: RopeParameters | null;
}

/** How keys are turned before they are stored. */
export interface RopeOptions {
  /**
   * `"ROPE_LLAMA"` turns each key by its position before it is scaled and stored, for attention with
   * queries that are turned already. Default `"NONE"`.
   */
  posEncodingMode?: "NONE" | "ROPE_LLAMA";
  /** What positions are divided by in rotary encoding. Default 1. */
  ropeScale?: number;
  /** The base of the frequencies in rotary encoding. Default 10,000. */
  ropeTheta?: number;
}

/** Options of {@linkcode appendPagedKvCache}. */
export interface AppendOptions extends RopeOptions {
  /** Layout of the cache's pages. Default `"NHD"`. */
  kvLayout?: KvLayout;
  /**
   * What stored keys will be multiplied with to be the real ones: a number above 0, or one for each
   * of the Hkv heads. Appended keys are multiplied by 1 / it, in float32. Default 1.
   */
  kScale?: number | ArrayLike<number>;
  /** The same for values. Default 1. */
  vScale?: number | ArrayLike<number>;
  /**
   * Where the scale of each appended row goes, for an FP8 cache with scales of tokens: float32
   * `[pages, Hkv, pageSize, 2]` in both layouts, as {@linkcode RunOptions.kvScales} takes them. A row is
   * divided by its largest finite magnitude over the dtype's largest number (448 or 57344), which is its
   * scale; keys after they are turned. A row of zeros has a scale of 1. NaN stays NaN, infinity
   * saturates. Not with `kScale` or `vScale`. Default: none.
   */
  kvScales?: Tensor;
}

/** The names of the options. */
export const APPEND_OPTIONS: readonly string[] = [
  "kvLayout",
  "kScale",
  "vScale",
  "kvScales",
  "posEncodingMode",
  "ropeScale",
  "ropeTheta",
];

/** What is appended, and where to, unchecked. */
export interface AppendArguments extends PageArrays {
  readonly key: TensorSpec;
  readonly value: TensorSpec;
  readonly batchIndices: ArrayLike<number>;
  readonly positions: ArrayLike<number>;
}

const TABLE_NAMES = {
  indptr: "kvIndptr",
  indices: "kvIndices",
  lastPageLen: "kvLastPageLen",
} as const;

/** Checks all arguments of an append. Throws `ShapeError`, `DTypeError` or `OptionError`. */
export function appendPaged(
  given: AppendArguments,
  cache: CachePages,
  options: WithScalesSpec<AppendOptions>,
): AppendProblem {
  const { key, value } = given;
  const numTokens = checkRows(key, value, cache);
  const table = checkPageTable(TABLE_NAMES, given, cache);
  return {
    numTokens,
    numKvHeads: cache.numKvHeads,
    headDim: cache.headDim,
    headDimV: cache.headDimV,
    dtype: key.dtype,
    kDtype: cache.kDtype,
    vDtype: cache.vDtype,
    numPages: cache.numPages,
    slots: slotsOf(given, numTokens, table, cache.pageSize),
    kStrides: cache.kStrides,
    vStrides: cache.vStrides,
    vOffset: cache.vOffset,
    kFactors: checkScales("options.kScale", options.kScale, cache.numKvHeads),
    vFactors: checkScales("options.vScale", options.vScale, cache.numKvHeads),
    kvScales: checkRowScales(options, cache),
    rope: checkRope(options, cache.headDim),
  };
}

/** Checks where rows' scales go. Throws `ShapeError`, `DTypeError` or `OptionError`. */
function checkRowScales(
  options: WithScalesSpec<AppendOptions>,
  cache: CachePages,
): ScaleStrides | null {
  const { kvScales } = options;
  if (kvScales === undefined) return null;
  const { numPages, numKvHeads, pageSize } = cache;
  checkScalesTensor(kvScales, { pages: numPages, numKvHeads, tokens: pageSize });
  checkOwnScales(options, cache);
  return scaleStrides({ numKvHeads, tokens: pageSize });
}

/** Checks that rows may have scales of their own. Throws `DTypeError` or `OptionError`. */
export function checkOwnScales(
  { kScale, vScale }: Pick<AppendOptions, "kScale" | "vScale">,
  { kDtype, vDtype }: KvDTypes,
): void {
  if (!isFp8DType(kDtype) || !isFp8DType(vDtype)) {
    throw new DTypeError("options.kvScales", {
      got: `a cache of ${isFp8DType(kDtype) ? vDtype : kDtype}`,
      expected: "float8_e4m3fn or float8_e5m2",
      hint: "Scales of tokens make rows fit the range of FP8; leave them out here.",
    });
  }
  if (kScale === undefined && vScale === undefined) return;
  throw new OptionError("options.kvScales", {
    got: `scales of tokens and ${kScale === undefined ? "vScale" : "kScale"}`,
    expected: "one of the two",
    hint: "A row's own scale makes it fit whatever its size is.",
  });
}

/** Checks the appended tensors; their number of tokens. Throws `ShapeError` or `DTypeError`. */
export function checkRows(
  key: TensorSpec,
  value: TensorSpec,
  cache: Pick<CachePages, "numKvHeads" | "headDim" | "headDimV">,
): number {
  const { numKvHeads, headDim, headDimV } = cache;
  const check = (name: string, { shape }: TensorSpec, dim: number) => {
    if (shape.length === 3 && shape[1] === numKvHeads && shape[2] === dim) return;
    throw new ShapeError(name, {
      got: `shape ${show(shape)}`,
      expected: `[nnz, ${numKvHeads}, ${dim}], with the cache's heads and head dim`,
      hint: "If the cache's heads are not what you meant, look at kvLayout.",
    });
  };
  check("appendKey", key, headDim);
  if (isFp8DType(key.dtype)) {
    throw new DTypeError("appendKey", {
      got: key.dtype,
      expected: "float32, float16 or bfloat16",
      hint: "Appending converts to the cache's dtype, also FP8; give keys and values as computed.",
    });
  }
  checkValue(key, value, ["appendKey", "appendValue"]);
  checkOneDtype(key, value, ["appendKey", "appendValue"]);
  check("appendValue", value, headDimV);
  return key.shape[0];
}

/** Checks where each token goes. */
function slotsOf(
  { batchIndices, positions }: AppendArguments,
  numTokens: number,
  { indptr, indices, lengths }: PageTable,
  pageSize: number,
): Uint32Array<ArrayBuffer> {
  const requests = checkPerToken("batchIndices", batchIndices, numTokens);
  const places = checkPerToken("positions", positions, numTokens);
  const slots = new Uint32Array(numTokens * SLOT_WORDS);
  for (let token = 0; token < numTokens; token++) {
    const request = checkRequest(token, requests[token], lengths.length);
    const position = checkPosition(token, places[token], request, lengths[request]);
    const page = indices[indptr[request] + Math.floor(position / pageSize)];
    slots.set([page, position % pageSize, position], token * SLOT_WORDS);
  }
  return slots;
}

function checkPerToken(subject: string, value: unknown, numTokens: number): readonly unknown[] {
  const hint = "getBatchIndicesPositions gives both arrays: two numbers for each appended token.";
  const list = checkList(subject, value, hint);
  if (list.length === numTokens) return list;
  throw new OptionError(subject, {
    got: `${list.length} numbers`,
    expected: `${numTokens}, one for each token of appendKey`,
    hint,
  });
}

function checkRequest(token: number, value: unknown, numRequests: number): number {
  if (isIntegerBelow(value, numRequests)) return value;
  throw new OptionError(`batchIndices[${token}]`, {
    got: show(value),
    expected: numRequests === 0
      ? "no token, since kvIndptr has no request"
      : `a request, an integer from 0 to ${numRequests - 1}`,
    hint: "kvIndptr has one entry more than there are requests.",
  });
}

function checkPosition(token: number, value: unknown, request: number, length: number): number {
  if (isIntegerBelow(value, length)) return value;
  throw new OptionError(`positions[${token}]`, {
    got: `${show(value)} for a token of request ${request}`,
    expected: length === 0
      ? "no token, since the request has no pages"
      : `an integer from 0 to ${length - 1}, the request's last position`,
    hint: "The page table counts the appended tokens already: give the request the pages for them.",
  });
}

/** 1 / scale in float32, checked; null where all are 1. Throws `OptionError`. */
export function checkScales(
  subject: string,
  value: unknown,
  numKvHeads: number,
): Float32Array<ArrayBuffer> | null {
  if (value === undefined) return null;
  const hint = `Give one number, or one for each of the ${numKvHeads} KV heads.`;
  const scales = typeof value === "number"
    ? new Array<number>(numKvHeads).fill(checkScale(subject, value))
    : checkList(subject, value, hint).map((scale, i) => checkScale(`${subject}[${i}]`, scale));
  if (scales.length !== numKvHeads) {
    throw new OptionError(subject, {
      got: `${scales.length} numbers`,
      expected: `${numKvHeads}, one for each of the KV heads`,
      hint,
    });
  }
  const factors = Float32Array.from(scales, (scale) => 1 / scale);
  return factors.every((factor) => factor === 1) ? null : factors;
}

/** Checks how keys are turned. Throws `OptionError`. */
export function checkRope(options: RopeOptions, headDim: number): RopeParameters | null {
  const mode = checkWord(
    "options.posEncodingMode",
    options.posEncodingMode ?? "NONE",
    ["NONE", "ROPE_LLAMA"],
    "NONE stores keys as they come; ALiBi belongs to attention, which adds it to logits.",
  );
  const scale = checkPositive("options.ropeScale", options.ropeScale ?? 1);
  const theta = checkPositive("options.ropeTheta", options.ropeTheta ?? 1e4);
  if (mode === "NONE") return null;
  if (headDim % 2 === 0) return { scale, theta };
  throw new OptionError("options.posEncodingMode", {
    got: `"ROPE_LLAMA" with a head dim of ${headDim}`,
    expected: "an even head dim",
    hint: "Rotary encoding turns pairs of dims.",
  });
}
