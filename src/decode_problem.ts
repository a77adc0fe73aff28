/**
 * Decode: from the shapes, dtypes and options of a call to an {@linkcode AttentionProblem}. Pure;
 * whatever is wrong with a call is found here, before anything is allocated.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "./attention_problem.ts";
import {
  type AttentionSettings,
  checkAttentionOptions,
  checkKvLayout,
  checkReturnLse,
  PADDED_DECODE_OPTIONS,
  SINGLE_DECODE_OPTIONS,
} from "./attention_options.ts";
import {
  type AttentionCall,
  cacheDims,
  type CacheSizes,
  cacheSizes,
  cacheStrides,
  checkPaddedCache,
  checkQueryAndKey,
  checkRank,
  checkSameValue,
  scaleSizes,
  type TensorSpec,
} from "./attention_shapes.ts";
import { checkLengths, SEQ_LENS } from "./lengths.ts";
import { givenScales, type WithScalesSpec } from "./token_scales.ts";
import type { DecodeOptions, KvLayout, PaddedDecodeOptions } from "./options.ts";

/** Checks `batchDecodeWithPaddedKvCache`: q [B, Hq, D], k and v [B, L, Hkv, D] or its HND. */
export function paddedDecode(
  q: TensorSpec,
  k: TensorSpec,
  v: TensorSpec,
  options: WithScalesSpec<PaddedDecodeOptions>,
): AttentionCall {
  const [batch, numQoHeads, headDim] = checkRank("q", q, ["B", "Hq", "D"]);
  const layout = checkKvLayout(options, PADDED_DECODE_OPTIONS);
  const cache = checkPaddedCache(q, k, layout);
  checkQueryAndKey(q, k, cache);
  checkSameValue(k, v);
  const settings = checkAttentionOptions(options, { ...cache, numQoHeads }, q.dtype);
  const kvLens = checkLengths(SEQ_LENS, options.seqLens, batch, cache.length);
  return {
    problem: decodeProblem({ q, k, v }, settings, {
      layout,
      numQoHeads,
      cache,
      kvLens,
      kvScales: givenScales(options.kvScales, scaleSizes(cache, batch)),
    }),
    outShape: [batch, numQoHeads, headDim],
    lseShape: [batch, numQoHeads],
    returnLse: checkReturnLse(options),
    hasPadding: false,
  };
}

/** Checks `singleDecodeWithKvCache`: q [Hq, D], k and v [L, Hkv, D] or its HND. */
export function singleDecode(
  q: TensorSpec,
  k: TensorSpec,
  v: TensorSpec,
  options: WithScalesSpec<DecodeOptions>,
): AttentionCall {
  const [numQoHeads, headDim] = checkRank("q", q, ["Hq", "D"]);
  const layout = checkKvLayout(options, SINGLE_DECODE_OPTIONS);
  const cache = cacheSizes(checkRank("k", k, cacheDims(layout)), layout);
  checkQueryAndKey(q, k, cache);
  checkSameValue(k, v);
  const settings = checkAttentionOptions(options, { ...cache, numQoHeads }, q.dtype);
  return {
    problem: decodeProblem({ q, k, v }, settings, {
      layout,
      numQoHeads,
      cache,
      kvLens: [cache.length],
      kvScales: givenScales(options.kvScales, scaleSizes(cache, null)),
    }),
    outShape: [numQoHeads, headDim],
    lseShape: [numQoHeads],
    returnLse: checkReturnLse(options),
    hasPadding: false,
  };
}

function decodeProblem(
  { q, k, v }: Readonly<Record<"q" | "k" | "v", TensorSpec>>,
  settings: AttentionSettings,
  { layout, numQoHeads, cache, kvLens, kvScales }: {
    layout: KvLayout;
    numQoHeads: number;
    cache: CacheSizes;
    kvLens: readonly number[];
    kvScales: AttentionProblem["kvScales"];
  },
): AttentionProblem {
  const requests = new Uint32Array(kvLens.length * REQUEST_WORDS);
  kvLens.forEach((kvLen, request) =>
    requests.set([request, 1, kvLen, request], request * REQUEST_WORDS)
  );
  const { headDim, numKvHeads } = cache;
  const rows = { token: numQoHeads * headDim, head: headDim };
  const strides = cacheStrides(layout, cache);
  return {
    ...settings,
    numRequests: kvLens.length,
    numQoHeads,
    numKvHeads,
    headDim,
    headDimV: headDim,
    qDtype: q.dtype,
    kDtype: k.dtype,
    vDtype: v.dtype,
    qStrides: rows,
    outStrides: rows,
    kStrides: strides,
    vStrides: strides,
    kvScales,
    pageSize: Math.max(1, cache.length),
    requests,
    pageTable: null,
    causal: false, // the one query is the last token: it sees every key
    mask: null,
    variant: null,
  };
}
