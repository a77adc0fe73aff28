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
 * Which position encoding attention applies to q and k, with the last query at the last key's
 * position (query i of n over L keys stands at L - n + i): none; rotary (NeoX halves, as Llama's); or ALiBi, which adds
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

/** Options of every attention call; names and defaults are FlashInfer's. */
export interface AttentionOptions {
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
   * Scales of each token and KV head: what a stored key and a stored value are multiplied with to be
   * the real ones, beside `kScale` and `vScale`. A float32 tensor on the call's device, in both layouts
   * `[B, Hkv, L, 2]` for padded calls and `[Hkv, L, 2]` for those without a batch: `[.., h, t, 0]` is
   * key t's of head h, `[.., h, t, 1]` value t's. Those of keys that nobody sees have no influence;
   * others must be finite. {@linkcode quantizeKv} makes such a cache. Default: none.
   */
  kvScales?: Tensor;
  /**
   * What the stored output is to be multiplied with to be the real one, for an output in FP8: the output
   * is divided by it before it is rounded. Above 0. Default 1.
   */
  outScale?: number;
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

/** Options of {@linkcode singleDecodeWithKvCache}. */
export type DecodeOptions = AttentionOptions;

/** Options of {@linkcode batchDecodeWithPaddedKvCache}. */
export interface PaddedDecodeOptions extends DecodeOptions {
  /**
   * Keys in use of each request: B integers from 0 to L. What lies behind them has no influence. A
   * request of 0 keys gives 0, with an lse of -Infinity, or its sink. Default: all L keys of every
   * request.
   */
  seqLens?: ArrayLike<number>;
}

/**
 * Which keys each query may see, beside what `windowLeft` leaves: at most one of the two masks,
 * which replaces `causal`.
 */
export interface MaskOptions {
  /**
   * Whether a query sees only the keys up to its own position: query i of n over L keys sees keys 0
   * to L - n + i (aligned at the bottom right). Where L < n, the first queries see none, and give 0
   * with an lse of -Infinity, or their sink. Default false. A mask replaces it.
   */
  causal?: boolean;
  /**
   * True or 1 where a query sees a key, false or 0 where it does not, row after row of queries:
   * `[N, L]`; `[B, N, L]` for padded calls, of which `qoLens` and `seqLens` leave the beginnings;
   * for ragged calls all requests' masks one after another. Default: none.
   */
  customMask?: ArrayLike<boolean | number>;
  /**
   * The same in bits, as FlashInfer's `segment_packbits(..., bitorder="little")` packs them: bit
   * i % 8 of byte i / 8, where bit 0 is the lowest, and each request's mask begins with a byte of its
   * own. Default: none.
   */
  packedCustomMask?: Uint8Array;
}

/**
 * Attention of the caller's own, as FlashInfer's JIT has it: bodies of WGSL functions that become part
 * of the kernel. WebGPU only; the WASM backend refuses them with `OptionError`.
 *
 * Both see `batch` (the request), `query` and `key` (counted from the request's first) and `head` (of
 * q), all u32, and the numbers of `variantParams` as `params.name`, f32. A text is compiled once;
 * other numbers need no compilation. A text that does not compile gives `ShaderError` with the
 * compiler's message and the line in the text.
 */
export interface VariantOptions {
  /**
   * Gives the logit that takes the place of `logit`, an f32: the scaled logit in natural units, after
   * the scale, ALiBi and the soft cap. For example `"return params.cap * tanh(logit / params.cap);"`.
   * Default: none.
   */
  logitsTransform?: string;
  /**
   * Gives whether the query sees the key, in addition to `causal`, masks, the window and lengths. For
   * example `"return key % 2u == 0u || key == query;"`. Default: none.
   */
  logitsMask?: string;
  /** Numbers by name, finite in float32. Names are WGSL identifiers. Default: none. */
  variantParams?: Readonly<Record<string, number>>;
}

/** Options of {@linkcode singlePrefillWithKvCache}. */
export interface PrefillOptions extends AttentionOptions, MaskOptions, VariantOptions {}

/** Options of {@linkcode batchPrefillWithPaddedKvCache}. */
export interface PaddedPrefillOptions extends PrefillOptions {
  /**
   * Queries in use of each request: B integers from 0 to N. The rows of the output behind them are 0,
   * and those of lse -Infinity. Default: all N queries of every request.
   */
  qoLens?: ArrayLike<number>;
  /**
   * Keys in use of each request: B integers from 0 to L. What lies behind them has no influence.
   * Default: all L keys of every request.
   */
  seqLens?: ArrayLike<number>;
}
