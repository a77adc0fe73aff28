/**
 * What the planned calls take: the types of plans, and the options of their constructors and runs.
 *
 * @module
 */

import type { DType, KvDType } from "./dtype.ts";
import type { AttentionOptions, KvLayout, MaskOptions, VariantOptions } from "./options.ts";
import type { Tensor } from "./tensor.ts";
import type { KvScalesMode } from "./token_scales.ts";

/** Options of the constructors of planned attention. */
export interface WrapperOptions {
  /** Layout of k and v. Default `"NHD"`. */
  kvLayout?: KvLayout;
}

/** What is computed, as a planned call takes it: of {@linkcode AttentionOptions}, without tensors. */
export interface PlannedOptions extends
  Omit<
    AttentionOptions,
    "kvLayout" | "returnLse" | "qScale" | "kScale" | "vScale" | "kvScales" | "sinks"
  > {
  /** As {@linkcode AttentionOptions.qScale}, in numbers. */
  qScale?: number | ArrayLike<number>;
  /** As {@linkcode AttentionOptions.kScale}, in numbers. */
  kScale?: number | ArrayLike<number>;
  /** As {@linkcode AttentionOptions.vScale}, in numbers. */
  vScale?: number | ArrayLike<number>;
  /**
   * Whether each token and KV head has scales of its own, which `run` then takes
   * ({@linkcode RunOptions.kvScales}). Default `"none"`.
   */
  kvScales?: KvScalesMode;
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
  /** The dtype that k and v will have, or `{ k, v }`, one for each. */
  kvDtype: KvDType;
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
  /** The dtype that the cache will have, or `{ k, v }`, one for each, where it is a pair. */
  kvDtype: KvDType;
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
  /**
   * What stored keys and values are multiplied with to be the real ones, for a plan with
   * `kvScales: "token"`: float32, in both layouts `[pages, Hkv, pageSize, 2]` for a paged cache (where
   * `[page, h, i, 0]` is of key i of the page and head h, `[page, h, i, 1]` of the value), and
   * `[Hkv, sum of L, 2]` for ragged keys. Those of keys that nobody sees have no influence; others must
   * be finite. A {@linkcode PagedKvCache} brings its own.
   */
  kvScales?: Tensor;
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
