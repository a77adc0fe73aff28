/**
 * The one description of attention that both backends compute, and the address rule behind it.
 *
 * Every cache is a paged cache: element = offset + page·pageStride + token·tokenStride + head·headStride.
 * NHD and HND differ in strides only; a padded cache has one long page a request; a ragged one has
 * pages that begin at any token. A query row is found by its token and head in the same way.
 *
 * @module
 */

import type { DType } from "./dtype.ts";

/** Where the elements of q or out lie, in elements. */
export interface RowStrides {
  readonly token: number;
  readonly head: number;
}

/** Where the elements of k or v lie, in elements. */
export interface CacheStrides extends RowStrides {
  readonly page: number;
  /** Where page 0 begins in its tensor; 0 where it is left out. */
  readonly offset?: number;
}

/**
 * Where the scales of tokens lie in their tensor, in pairs of float32, one of the key and one of the
 * value: those of a head side by side, at page·page + head·head + token.
 */
export interface ScaleStrides {
  readonly page: number;
  readonly head: number;
}

/** Words of one request in {@linkcode AttentionProblem.requests}. */
export const REQUEST_WORDS = 4;

/** What is to be computed: pure numbers, no memory, no device. */
export interface AttentionProblem {
  readonly numRequests: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  /** Elements of a row of q and k. */
  readonly headDim: number;
  /** Elements of a row of v and the output; decode's kernels want it equal to `headDim`. */
  readonly headDimV: number;
  readonly qDtype: DType;
  readonly kDtype: DType;
  readonly vDtype: DType;
  readonly outDtype: DType;
  readonly qStrides: RowStrides;
  readonly outStrides: RowStrides;
  readonly kStrides: CacheStrides;
  readonly vStrides: CacheStrides;
  /** Tokens of a page. */
  readonly pageSize: number;
  /**
   * Four words a request: its first query row, its number of query rows, its number of keys, and
   * its first entry in `pageTable`.
   */
  readonly requests: Uint32Array<ArrayBuffer>;
  /** Page numbers; null where entry i is page i (padded caches). */
  readonly pageTable: Uint32Array<ArrayBuffer> | null;
  /** Whether a query sees only keys up to its own position, counted from the end (bottom right). */
  readonly causal: boolean;
  /**
   * How far a query looks back: it sees keys from its own position minus this on; null is no bound.
   * Its own position is counted from the end, as in `causal`.
   */
  readonly windowLeft: number | null;
  /** Which keys each query may see, in addition to the window; null is all. Never with `causal`. */
  readonly mask: AttentionMask | null;
  /**
   * Multiplies q·k, for each query head: the softmax scale with the scales of q and k folded in.
   */
  readonly logitScales: Float32Array<ArrayBuffer>;
  /** Multiplies the output, for each query head: the scale of v. */
  readonly outScales: Float32Array<ArrayBuffer>;
  /**
   * Scales of each token and KV head: what a stored key and a stored value are multiplied with, beside
   * the scales above; null is none.
   */
  readonly kvScales: ScaleStrides | null;
  /**
   * Rotary position encoding of q and k (NeoX halves), before their product; null is none. Dim i
   * and i + headDim / 2 turn by position · theta^(-2i / headDim) / scale.
   */
  readonly rope: RopeParameters | null;
  /**
   * ALiBi, for each query head: slope · (key's position - query's position) is added to the scaled
   * logit; null is none.
   */
  readonly alibiSlopes: Float32Array<ArrayBuffer> | null;
  /**
   * What logits are capped to: cap · tanh(logit / cap), after scale and ALiBi; null is no cap.
   */
  readonly logitsSoftCap: number | null;
  /**
   * A logit (natural logarithm) for each query head that joins the softmax's denominator, and so the
   * lse, once; null is none. It is neither scaled nor capped.
   */
  readonly sinks: Float32Array<ArrayBuffer> | null;
  /** What the caller adds in WGSL; null is nothing. */
  readonly variant: AttentionVariant | null;
  /** Multiplies lse, which is in base 2: 1, or ln 2 for natural logarithms. */
  readonly lseScale: number;
}

/**
 * Whether two problems are the same but for their batch. Numbers for each head count as the same where
 * they are in the same arrays.
 */
export function isOtherBatch(a: AttentionProblem, b: AttentionProblem): boolean {
  if ((a.pageTable === null) !== (b.pageTable === null)) return false;
  // What a batch makes of a problem: which requests there are, and where their keys lie.
  const ofBatch = { numRequests: 0, requests: 0, pageTable: 0 };
  for (const name in a) {
    const field = name as keyof AttentionProblem;
    if (a[field] !== b[field] && !(name in ofBatch) && !isAlike(a[field], b[field])) return false;
  }
  return true;
}

/** Whether fields are objects of the same fields. */
function isAlike(a: unknown, b: unknown): boolean {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (ArrayBuffer.isView(a) || ArrayBuffer.isView(b)) return false;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length &&
    names.every((name) => a[name as never] === b[name as never]);
}

/** Rows of q and of the results. */
export function rowsOf({ requests }: Pick<AttentionProblem, "requests">): number {
  let rows = 0;
  for (let at = 0; at < requests.length; at += REQUEST_WORDS) {
    const end = requests[at] + requests[at + 1];
    if (end > rows) rows = end;
  }
  return rows;
}

/** Whether there is anything to compute. */
export function hasQueries({ requests }: Pick<AttentionProblem, "requests">): boolean {
  return requests.some((word, i) => i % REQUEST_WORDS === 1 && word > 0);
}

/**
 * A mask of single bits. The row of query i of a request begins at word
 * `firstWords[request] + i·ceil(kvLen / 32)`; key j is seen where bit j % 32 (0 is the lowest) of
 * its word j / 32 is set. The bits after a row's last key are 0.
 */
export interface AttentionMask {
  readonly words: Uint32Array<ArrayBuffer>;
  /** One for each request. */
  readonly firstWords: Uint32Array<ArrayBuffer>;
}

/**
 * The caller's own WGSL, bodies of functions: what becomes of a logit (in natural units, after
 * everything else), and whether a key is seen (beside everything else).
 */
export interface AttentionVariant {
  /** Of (logit, batch, query, key, head) to f32. */
  readonly logitsTransform: string | null;
  /** Of (batch, query, key, head) to bool. */
  readonly logitsMask: string | null;
  /** Numbers that both find in `params`. */
  readonly params: readonly (readonly [name: string, value: number])[];
}

/** How fast rotary position encoding turns. */
export interface RopeParameters {
  readonly scale: number;
  readonly theta: number;
}

/**
 * What is to be merged: attention over parts of the keys, given by normalized outputs v and their
 * lse in base 2 (FlashInfer's states). With weights 2^(s_i - max s), out = sum w_i v_i / sum w_i and
 * lse = max s + log2(sum w_i). States of lse minus infinity hold nothing: their v is not looked at.
 *
 * There are two sources, a and b, each [rows, heads, headDim] in memory, and every row of the result
 * takes some rows of each.
 */
export interface MergeProblem {
  readonly numRows: number;
  readonly numHeads: number;
  readonly headDim: number;
  /** The dtype of both sources. */
  readonly vDtype: DType;
  readonly outDtype: DType;
  /**
   * Four words a row of the result: its first row of a, how many, its first row of b, how many.
   * {@linkcode KEEP_ROW} in place of the first count stands for that row of a, bit by bit, whatever
   * it holds; outDtype is vDtype then.
   */
  readonly rows: Uint32Array<ArrayBuffer>;
}

/** See {@linkcode MergeProblem.rows}. */
export const KEEP_ROW: number = 2 ** 32 - 1;
