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

/** Options of the constructors of planned attention. */
export interface WrapperOptions {
  /** Layout of k and v. Default `"NHD"`. */
  kvLayout?: KvLayout;
}

/** What is computed, as a planned call takes it: of {@linkcode AttentionOptions}, without tensors. */
export interface PlannedOptions
  extends
    Omit<AttentionOptions, "kvLayout" | "returnLse" | "qScale" | "kScale" | "vScale" | "sinks"> {
  /** As {@linkcode AttentionOptions.qScale}, in numbers. */
  qScale?: number | ArrayLike<number>;
  /** As {@linkcode AttentionOptions.kScale}, in numbers. */
  kScale?: number | ArrayLike<number>;
  /** As {@linkcode AttentionOptions.vScale}, in numbers. */
  vScale?: number | ArrayLike<number>;
  /** As {@linkcode AttentionOptions.sinks}, in numbers. */
  sinks?: ArrayLike<number>;
}

/** What {@linkcode BatchPrefillWithRaggedKvCache.plan} takes. */
export interface RaggedPrefillPlan extends PlannedOptions, MaskOptions, VariantOptions {
  /**
   * Where each request's queries begin among the rows of q, and where the last one's end: B + 1
   * integers, from 0, never falling.
   */
  qoIndptr: ArrayLike<number>;
  /** The same for each request's keys among the tokens of k and v. */
  kvIndptr: ArrayLike<number>;
  /** Query heads: a multiple of `numKvHeads`. */
  numQoHeads: number;
  /** Heads of k and v. */
  numKvHeads: number;
  /** The head dim of q and k. */
  headDim: number;
  /** The head dim of v and the output. Default `headDim`. */
  headDimV?: number;
  /** The dtype that q will have. */
  qDtype: DType;
  /** The dtype that k and v will have. */
  kvDtype: DType;
}

/** The sizes that the plans of paged calls name. */
export interface PagedSizes {
  /** Query heads: a multiple of `numKvHeads`. */
  numQoHeads: number;
  /** Heads of the cache. */
  numKvHeads: number;
  /** The head dim of q and k. */
  headDim: number;
  /** Tokens of a page. */
  pageSize: number;
  /** The dtype that q will have. */
  qDtype: DType;
  /** The dtype that the cache will have. */
  kvDtype: DType;
}

/** What {@linkcode BatchDecodeWithPagedKvCache.plan} takes. */
export interface PagedDecodePlan extends PlannedOptions, PagedSizes {
  /**
   * Where each request's pages begin in `indices`, and where the last one's end: B + 1 integers, from
   * 0, never falling.
   */
  indptr: ArrayLike<number>;
  /** Page numbers, each request's in the order of its tokens. */
  indices: ArrayLike<number>;
  /** Tokens in the last page of each request: 1 to `pageSize`; 0 for a request without pages. */
  lastPageLen: ArrayLike<number>;
}

/** What {@linkcode BatchPrefillWithPagedKvCache.plan} takes. */
export interface PagedPrefillPlan extends PlannedOptions, MaskOptions, VariantOptions, PagedSizes {
  /**
   * Where each request's queries begin among the rows of q, and where the last one's end: B + 1
   * integers, from 0, never falling.
   */
  qoIndptr: ArrayLike<number>;
  /** The same for each request's pages in `pagedKvIndices`. */
  pagedKvIndptr: ArrayLike<number>;
  /** Page numbers, each request's in the order of its tokens. */
  pagedKvIndices: ArrayLike<number>;
  /** Tokens in the last page of each request: 1 to `pageSize`; 0 for a request without pages. */
  pagedKvLastPageLen: ArrayLike<number>;
  /** The head dim of v and the output, for a cache that is a pair. Default `headDim`. */
  headDimV?: number;
}

/** One level of a cascade: groups of queries, and the pages that each group shares. */
export interface CascadeLevel {
  /**
   * Where each group's queries begin among the rows of q, and where the last one's end: integers from
   * 0, never falling, to the number of rows, which all levels have in common.
   */
  qoIndptr: ArrayLike<number>;
  /** The same for each group's pages in `pagedKvIndices`. */
  pagedKvIndptr: ArrayLike<number>;
  /** Page numbers, each group's in the order of its tokens. */
  pagedKvIndices: ArrayLike<number>;
  /** Tokens in the last page of each group: 1 to `pageSize`; 0 for a group without pages. */
  pagedKvLastPageLen: ArrayLike<number>;
}

/** What {@linkcode MultiLevelCascadeAttention.plan} takes. */
export interface CascadePlan
  extends
    Omit<PlannedOptions, "posEncodingMode" | "ropeScale" | "ropeTheta" | "windowLeft">,
    PagedSizes {
  /** From what most requests share to what each has alone. */
  levels: readonly CascadeLevel[];
  /**
   * Whether a query of the last level sees only the keys up to its own position there, aligned at the
   * bottom right as in {@linkcode MaskOptions.causal}; it sees all keys of the other levels. Default
   * false.
   */
  causal?: boolean;
}

/** Options of the constructor of {@linkcode MultiLevelCascadeAttention}. */
export interface CascadeOptions extends WrapperOptions {
  /** Levels that plans have: at least 1. */
  numLevels: number;
}

/** Options of the `run` of planned calls. */
export interface RunOptions {
  /** Whether to give the log-sum-exp of each query and head too. Default false. */
  returnLse?: boolean;
  /**
   * Where to put the output, of its shape and dtype; none of the inputs, nor in their buffers.
   * Default: a new tensor.
   */
  out?: Tensor;
  /** Where to put lse, with `returnLse: true`; as `out`. Default: a new tensor. */
  lse?: Tensor;
  /**
   * Where to record the work, in a pass of its own, instead of submitting it: the results are there
   * once the caller has submitted. Submit before the next `plan()` and before `destroy()`: both write
   * or free buffers that the recorded work reads. WebGPU only. Default: the work is submitted.
   */
  encoder?: GPUCommandEncoder;
}
