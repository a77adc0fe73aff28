/**
 * The options of attention calls: their types.
 *
 * @module
 */

import type { DType } from "./dtype.ts";
import type { Tensor } from "./tensor.ts";

/**
 * The order of a cache's inner dims: `"NHD"` is (sequence, heads, dim), `"HND"` is
 * (heads, sequence, dim). q and the output are `[..., heads, dim]` in both.
 */
export type KvLayout = "NHD" | "HND";

/**
 * Which position encoding attention applies to q and k, with the query of a decode call at the last
 * key's position: none; rotary (NeoX halves, as Llama's); or ALiBi, which adds
 * `slope[head] · (key's position - query's position)` to the scaled logits, with the slopes of
 * FlashInfer's `get_alibi_slopes`.
 */
export type PosEncodingMode = "NONE" | "ROPE_LLAMA" | "ALIBI";

/** The base of lse: binary logarithms, as FlashInfer's, or natural ones. */
export type LseBase = "log2" | "ln";

/**
 * One number for all heads, or one for each: an array, or a float32 tensor of rank 1 on the call's
 * device. A tensor is read back to the host first, which makes its call wait for the GPU.
 */
export type HeadValues = number | ArrayLike<number> | Tensor;

/** Options of every decode call; names and defaults are FlashInfer's. */
export interface DecodeOptions {
  /** Layout of k and v. Default `"NHD"`. */
  kvLayout?: KvLayout;
  /** Position encoding inside attention. Default `"NONE"`: q and k come as they are to be used. */
  posEncodingMode?: PosEncodingMode;
  /** What positions are divided by in rotary encoding. Default 1. */
  ropeScale?: number;
  /** The base of the frequencies in rotary encoding. Default 10,000. */
  ropeTheta?: number;
  /** Scale of q·k before the softmax. Default `1 / sqrt(headDim)`. */
  smScale?: number;
  /** What a stored query must be multiplied with to be the real one; for each of the Hq query heads,
   * or one for all. Default 1. */
  qScale?: HeadValues;
  /** The same for stored keys; for each of the Hkv KV heads, or one for all. Default 1. */
  kScale?: HeadValues;
  /** The same for stored values; for each of the Hkv KV heads, or one for all. Default 1. */
  vScale?: HeadValues;
  /**
   * Sliding window: a query sees the `windowLeft` keys before its own, and its own. Default -1: all.
   */
  windowLeft?: number;
  /**
   * Caps logits: `cap · tanh(logit / cap)`, after the scale and ALiBi. Default 0: no cap.
   */
  logitsSoftCap?: number;
  /**
   * Attention sinks: a logit (natural logarithm) for each of the Hq query heads, which joins the
   * softmax's denominator and the lse once, neither scaled nor capped. Default: none.
   */
  sinks?: ArrayLike<number> | Tensor;
  /** The output's dtype; FP8 saturates. Default q's dtype, or float16 where q is FP8. */
  outDtype?: DType;
  /** Whether to give the log-sum-exp of each query and head too. Default false. */
  returnLse?: boolean;
  /** The base of lse. Default `"log2"`. */
  lseBase?: LseBase;
}

/** Options of {@linkcode batchDecodeWithPaddedKvCache}. */
export interface PaddedDecodeOptions extends DecodeOptions {
  /**
   * Keys in use of each request: B integers from 0 to L. What lies behind them has no influence. A
   * request of 0 keys gives 0, with an lse of -Infinity, or its sink. Default: all L keys of every
   * request.
   */
  seqLens?: ArrayLike<number>;
}
