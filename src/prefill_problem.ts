/**
 * Prefill: from the shapes, dtypes and options of a call to an {@linkcode AttentionProblem}. Pure;
 * whatever is wrong with a call is found here, before anything is allocated.
 *
 * @module
 */

import { REQUEST_WORDS } from "./attention_problem.ts";
import { checkVisibility } from "./attention_mask.ts";
import { checkVariant } from "./attention_variant.ts";
import {
  checkAttentionOptions,
  checkKvLayout,
  checkReturnLse,
  PADDED_PREFILL_OPTIONS,
  SINGLE_PREFILL_OPTIONS,
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
  checkValue,
  scaleSizes,
  type TensorSpec,
} from "./attention_shapes.ts";
import { checkLengths, QO_LENS, SEQ_LENS } from "./lengths.ts";
import { givenScales, type WithScalesSpec } from "./token_scales.ts";
import type { KvLayout, PaddedPrefillOptions, PrefillOptions } from "./options.ts";

/** Checks `batchPrefillWithPaddedKvCache`: q [B, N, Hq, D], k and v [B, L, Hkv, D] or its HND. */
export function paddedPrefill(
  q: TensorSpec,
  k: TensorSpec,
  v: TensorSpec,
  options: WithScalesSpec<PaddedPrefillOptions>,
): AttentionCall {
  checkRank("q", q, ["B", "N", "Hq", "D"]);
  const layout = checkKvLayout(options, PADDED_PREFILL_OPTIONS);
  return prefillCall({ q, k, v }, checkPaddedCache(q, k, layout), layout, options);
}

/** Checks `singlePrefillWithKvCache`: q [N, Hq, D], k and v [L, Hkv, D] or its HND. */
export function singlePrefill(
  q: TensorSpec,
  k: TensorSpec,
  v: TensorSpec,
  options: WithScalesSpec<PrefillOptions>,
): AttentionCall {
  checkRank("q", q, ["N", "Hq", "D"]);
  const layout = checkKvLayout(options, SINGLE_PREFILL_OPTIONS);
  const cache = cacheSizes(checkRank("k", k, cacheDims(layout)), layout);
  return prefillCall({ q, k, v }, cache, layout, options);
}

function prefillCall(
  { q, k, v }: Readonly<Record<"q" | "k" | "v", TensorSpec>>,
  cache: CacheSizes,
  layout: KvLayout,
  options: WithScalesSpec<PaddedPrefillOptions>,
): AttentionCall {
  checkQueryAndKey(q, k, cache);
  const headDimV = checkValue(k, v);
  const [batch, rows] = [1, ...q.shape].slice(-4);
  const { length, numKvHeads, headDim } = cache;
  const numQoHeads = q.shape[q.shape.length - 2];
  const settings = checkAttentionOptions(options, { ...cache, numQoHeads }, q.dtype);
  const qoLens = checkLengths(QO_LENS, options.qoLens, batch, rows);
  const kvLens = checkLengths(SEQ_LENS, options.seqLens, batch, length);
  const visibility = checkVisibility(
    options,
    qoLens.map((qoLen, i) => ({ rows, columns: length, qoLen, kvLen: kvLens[i] })),
  );
  const returnLse = checkReturnLse(options);
  const requests = new Uint32Array(batch * REQUEST_WORDS);
  qoLens.forEach((qoLen, i) => requests.set([i * rows, qoLen, kvLens[i], i], i * REQUEST_WORDS));
  return {
    problem: {
      ...settings,
      ...visibility,
      ...checkVariant(options),
      numRequests: batch,
      numQoHeads,
      numKvHeads,
      headDim,
      headDimV,
      qDtype: q.dtype,
      kDtype: k.dtype,
      vDtype: v.dtype,
      qStrides: { token: numQoHeads * headDim, head: headDim },
      outStrides: { token: numQoHeads * headDimV, head: headDimV },
      kStrides: cacheStrides(layout, cache),
      vStrides: cacheStrides(layout, { ...cache, headDim: headDimV }),
      kvScales: givenScales(
        options.kvScales,
        scaleSizes(cache, k.shape.length === 4 ? batch : null),
      ),
      pageSize: Math.max(1, length),
      requests,
      pageTable: null,
    },
    outShape: [...q.shape.slice(0, -1), headDimV],
    lseShape: q.shape.slice(0, -1),
    returnLse,
    hasPadding: qoLens.some((qoLen) => qoLen < rows),
  };
}
