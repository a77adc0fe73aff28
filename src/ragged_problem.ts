/**
 * Prefill of requests whose rows lie one after another: from what `plan` is given to an
 * {@linkcode AttentionProblem}, and what `run` must be given then. Pure.
 *
 * @module
 */

import { type AttentionProblem, type CacheStrides, REQUEST_WORDS } from "./attention_problem.ts";
import { checkVisibility } from "./attention_mask.ts";
import { checkVariant } from "./attention_variant.ts";
import { checkAttentionOptions, PLANNED_PREFILL_OPTIONS } from "./attention_options.ts";
import { OptionError } from "./errors.ts";
import { checkIndptr, lengthsOf } from "./lengths.ts";
import { checkNames } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import type { RaggedPrefillPlan } from "./planned_options.ts";
import { hasTokenScales, scalesSpec } from "./token_scales.ts";
import {
  checkKvDtype,
  checkPlanDtype,
  checkPlanSizes,
  type PlannedTensors,
} from "./plan_checks.ts";

/** A plan that is known to be right. */
export interface RaggedPlan {
  readonly problem: AttentionProblem;
  /** What each tensor of `run` must be. */
  readonly tensors: PlannedTensors<"q" | "k" | "v" | "kvScales" | "out" | "lse">;
}

/** Longer than any request: kernels are compiled for a page size, so it must not follow the lengths. */
const PAGE_SIZE = 2 ** 30;

const PLAN_NAMES: readonly string[] = [
  "qoIndptr",
  "kvIndptr",
  "numQoHeads",
  "numKvHeads",
  "headDim",
  "headDimV",
  "qDtype",
  "kvDtype",
  ...PLANNED_PREFILL_OPTIONS,
];

/** Checks what `plan` is given. */
export function raggedPrefill(plan: RaggedPrefillPlan, layout: KvLayout): RaggedPlan {
  checkNames(plan, PLAN_NAMES);
  const sizes = checkPlanSizes(plan);
  const { numQoHeads, numKvHeads, headDim, headDimV } = sizes;
  const qDtype = checkPlanDtype("options.qDtype", plan.qDtype);
  const { kDtype, vDtype } = checkKvDtype("options.kvDtype", plan.kvDtype);
  const qoIndptr = checkIndptr("options.qoIndptr", plan.qoIndptr);
  const kvIndptr = checkIndptr("options.kvIndptr", plan.kvIndptr);
  if (kvIndptr.length !== qoIndptr.length) {
    throw new OptionError("options.kvIndptr", {
      got: `${kvIndptr.length} entries`,
      expected: `${qoIndptr.length}, as many as qoIndptr has`,
      hint: "Every request has its queries and its keys; either may be none.",
    });
  }
  const settings = checkAttentionOptions(plan, sizes, qDtype);
  const [qoLens, kvLens] = [lengthsOf(qoIndptr), lengthsOf(kvIndptr)];
  const visibility = checkVisibility(
    plan,
    qoLens.map((rows, i) => ({ rows, columns: kvLens[i], qoLen: rows, kvLen: kvLens[i] })),
  );
  const requests = new Uint32Array(qoLens.length * REQUEST_WORDS);
  qoLens.forEach((qoLen, i) => requests.set([qoIndptr[i], qoLen, kvLens[i], i], i * REQUEST_WORDS));
  const [rows, tokens] = [qoIndptr, kvIndptr].map((indptr) => indptr[indptr.length - 1]);
  const cacheShape = (dim: number) =>
    layout === "NHD" ? [tokens, numKvHeads, dim] : [numKvHeads, tokens, dim];
  return {
    problem: {
      ...settings,
      ...visibility,
      ...checkVariant(plan),
      numRequests: qoLens.length,
      numQoHeads,
      numKvHeads,
      headDim,
      headDimV,
      qDtype,
      kDtype,
      vDtype,
      qStrides: { token: numQoHeads * headDim, head: headDim },
      outStrides: { token: numQoHeads * headDimV, head: headDimV },
      kStrides: raggedStrides(layout, numKvHeads, tokens, headDim),
      vStrides: raggedStrides(layout, numKvHeads, tokens, headDimV),
      kvScales: hasTokenScales(plan.kvScales) ? { page: 1, head: tokens } : null,
      pageSize: PAGE_SIZE,
      requests,
      pageTable: Uint32Array.from(kvIndptr.slice(0, -1)),
    },
    tensors: {
      q: { shape: [rows, numQoHeads, headDim], dtype: qDtype },
      k: { shape: cacheShape(headDim), dtype: kDtype },
      v: { shape: cacheShape(headDimV), dtype: vDtype },
      kvScales: scalesSpec({ pages: null, numKvHeads, tokens }),
      out: { shape: [rows, numQoHeads, headDimV], dtype: settings.outDtype },
      lse: { shape: [rows, numQoHeads], dtype: "float32" },
    },
  };
}

/** A request is one page, and pages begin at any token. */
function raggedStrides(
  layout: KvLayout,
  numKvHeads: number,
  tokens: number,
  headDim: number,
): CacheStrides {
  const token = layout === "NHD" ? numKvHeads * headDim : headDim;
  return { page: token, token, head: layout === "NHD" ? headDim : tokens * headDim };
}
