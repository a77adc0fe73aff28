/**
 * Attention over a paged cache: from what `plan` is given to an {@linkcode AttentionProblem}, and what
 * `run` must be given then. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "./attention_problem.ts";
import { checkVisibility } from "./attention_mask.ts";
import { checkVariant } from "./attention_variant.ts";
import {
  type AttentionSettings,
  checkAttentionOptions,
  PLANNED_DECODE_OPTIONS,
  PLANNED_PREFILL_OPTIONS,
} from "./attention_options.ts";
import { type CachePages, cachePages } from "./cache_pages.ts";
import type { DType, KvDTypes } from "./dtype.ts";
import type { TensorSpec } from "./attention_shapes.ts";
import { OptionError, PlanError } from "./errors.ts";
import { checkIndptr, lengthsOf } from "./lengths.ts";
import { checkNames } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import type {
  PagedDecodePlan,
  PagedPrefillPlan,
  PagedSizes,
  PlannedOptions,
} from "./planned_options.ts";
import {
  checkLastPageLens,
  checkPageTable,
  checkTokens,
  type PageArrayNames,
  pagedLengths,
  type PageTable,
} from "./page_indices.ts";
import {
  checkKvDtype,
  checkPlanDtype,
  checkPlanSize,
  checkPlanSizes,
  type PlannedTensors,
} from "./plan_checks.ts";
import { type Given, isGiven, rememberGiven } from "./plan_memory.ts";
import { show } from "./shape.ts";
import { hasTokenScales, scaleStrides } from "./token_scales.ts";

/** A plan that is known to be right. */
export interface PagedPlan {
  /** For a cache of one tensor, or where v's rows are of another length, a pair. */
  readonly problem: AttentionProblem;
  readonly tensors: PlannedTensors<"q" | "out" | "lse">;
  /** What the cache must be, but for its number of pages. */
  readonly cache: CachePages;
  readonly table: PageTable;
  /** The largest page number, and the request that has it; -1 where there is none. */
  readonly lastPage: number;
  readonly lastPageOf: number;
  /** The sizes and options that it was made of; null where they are not remembered. */
  readonly given: Given | null;
}

const SIZE_NAMES = ["numQoHeads", "numKvHeads", "headDim", "pageSize", "qDtype", "kvDtype"];
const DECODE_SETTINGS = [...SIZE_NAMES, ...PLANNED_DECODE_OPTIONS];
const DECODE_NAMES = ["indptr", "indices", "lastPageLen", ...DECODE_SETTINGS];
const PREFILL_NAMES = [
  "qoIndptr",
  "pagedKvIndptr",
  "pagedKvIndices",
  "pagedKvLastPageLen",
  "headDimV",
  ...SIZE_NAMES,
  ...PLANNED_PREFILL_OPTIONS,
];
const DECODE_TABLE: PageArrayNames = {
  indptr: "options.indptr",
  indices: "options.indices",
  lastPageLen: "options.lastPageLen",
};
/** How many pages a cache has is known at run only. */
const ANY_PAGES = 2 ** 31;

/**
 * Checks what decode's `plan` is given.
 *
 * @param before A plan for the same layout: where sizes and options are the same, they are not checked
 *   again, and what depends on them is taken from there.
 */
export function pagedDecode(
  plan: PagedDecodePlan,
  layout: KvLayout,
  before?: PagedPlan,
): PagedPlan {
  checkNames(plan, DECODE_NAMES);
  const frame = before?.given && isGiven(plan, before.given) ? before : decodeFrame(plan, layout);
  const { indptr, indices, lastPageLen } = plan;
  const table = checkPageTable(DECODE_TABLE, { indptr, indices, lastPageLen }, {
    numPages: ANY_PAGES,
    pageSize: frame.cache.pageSize,
  });
  const qoIndptr: number[] = [];
  for (let i = 0; i < table.indptr.length; i++) qoIndptr.push(i);
  return withBatch(frame, { qoIndptr, table });
}

/** What decode's plans of the same sizes and options have in common. */
function decodeFrame(plan: PagedDecodePlan, layout: KvLayout): PagedFrame {
  const { settings, sizes } = checkPagedSettings(plan);
  const seen = { causal: false, mask: null, variant: null };
  return {
    ...pagedFrame(sizes, settings, seen, layout),
    given: rememberGiven(plan, DECODE_SETTINGS),
  };
}

/** Checks what prefill's `plan` is given. */
export function pagedPrefill(plan: PagedPrefillPlan, layout: KvLayout): PagedPlan {
  checkNames(plan, PREFILL_NAMES);
  const { settings, sizes } = checkPagedSettings(plan);
  const level = checkLevel(plan, sizes.pageSize, "options");
  const visibility = checkVisibility(
    plan,
    lengthsOf(level.qoIndptr).map((rows, i) => {
      const kvLen = level.table.lengths[i];
      return { rows, columns: kvLen, qoLen: rows, kvLen };
    }),
  );
  const seen = { ...visibility, ...checkVariant(plan) };
  return pagedPlan(sizes, settings, seen, { layout, ...level });
}

/** Checks the sizes and options that all levels of a cascade share. */
export function checkPagedSettings(
  plan: PlannedOptions & PagedSizes & { readonly headDimV?: number },
): { readonly sizes: CheckedSizes; readonly settings: AttentionSettings } {
  const sizes = checkSizes(plan);
  return { sizes, settings: checkAttentionOptions(plan, sizes, sizes.qDtype) };
}

/** The index arrays of a paged prefill, or of one level of a cascade. */
export type PagedArrays = Pick<
  PagedPrefillPlan,
  "qoIndptr" | "pagedKvIndptr" | "pagedKvIndices" | "pagedKvLastPageLen"
>;

/** Index arrays that are known to be right. */
export interface PagedLevel {
  readonly qoIndptr: readonly number[];
  readonly table: PageTable;
}

/** Checks index arrays, which errors find in `subject`. Throws `OptionError`. */
export function checkLevel(arrays: PagedArrays, pageSize: number, subject: string): PagedLevel {
  const qoIndptr = checkIndptr(`${subject}.qoIndptr`, arrays.qoIndptr);
  const names: PageArrayNames = {
    indptr: `${subject}.pagedKvIndptr`,
    indices: `${subject}.pagedKvIndices`,
    lastPageLen: `${subject}.pagedKvLastPageLen`,
  };
  const table = checkPageTable(names, {
    indptr: arrays.pagedKvIndptr,
    indices: arrays.pagedKvIndices,
    lastPageLen: arrays.pagedKvLastPageLen,
  }, { numPages: ANY_PAGES, pageSize });
  if (table.indptr.length === qoIndptr.length) return { qoIndptr, table };
  throw new OptionError(names.indptr, {
    got: `${table.indptr.length} entries`,
    expected: `${qoIndptr.length}, as many as qoIndptr has`,
    hint: "Every request has its queries and its pages; either may be none.",
  });
}

/** The same plan after `lastPageLen` changed. Throws `OptionError`. */
export function withLastPageLen(plan: PagedPlan, lastPageLen: ArrayLike<number>): PagedPlan {
  const { table: { indptr, indices }, cache: { pageSize }, problem } = plan;
  const lens = checkLastPageLens("lastPageLen", lastPageLen, indptr, pageSize);
  const lengths = pagedLengths(indptr, lens, pageSize);
  checkTokens(lengths, (request) => `lastPageLen[${request}]`);
  const requests = problem.requests.slice();
  for (let i = 0; i < lengths.length; i++) requests[i * REQUEST_WORDS + 2] = lengths[i];
  return { ...plan, table: { indptr, indices, lengths }, problem: { ...problem, requests } };
}

/** The problem over a cache that lies as this one does. */
export function overCache(
  plan: Pick<PagedPlan, "problem">,
  { kStrides, vStrides, vOffset }: CachePages,
): AttentionProblem {
  return { ...plan.problem, kStrides, vStrides: { ...vStrides, offset: vOffset ?? 0 } };
}

/** Checks the cache of a run against the plan. Throws `PlanError`. */
export function checkPlannedCache(
  { cache: planned, lastPage, lastPageOf }: PagedPlan,
  cache: CachePages,
): void {
  const hint = "Call plan() again for another cache.";
  for (
    const name of ["pageSize", "numKvHeads", "headDim", "headDimV", "kDtype", "vDtype"] as const
  ) {
    if (cache[name] === planned[name]) continue;
    throw new PlanError("kvCache", {
      got: `${name} ${show(cache[name])}`,
      expected: `${show(planned[name])}, by the plan`,
      hint: name === "pageSize" || name === "numKvHeads" ? `${hint} Look at kvLayout too.` : hint,
    });
  }
  if (lastPage < cache.numPages) return;
  throw new PlanError("kvCache", {
    got: `${cache.numPages} pages, of which request ${lastPageOf} has page ${lastPage}`,
    expected: `at least ${lastPage + 1}, by the plan's page numbers`,
    hint: "Page numbers count from 0.",
  });
}

/** Sizes that are known to be right. */
export type CheckedSizes = Required<Omit<PagedSizes, "kvDtype">> & KvDTypes & {
  readonly headDimV: number;
  readonly hasTokenScales: boolean;
};

function checkSizes(
  plan: PagedSizes & Pick<PlannedOptions, "kvScales"> & { readonly headDimV?: number },
): CheckedSizes {
  return {
    ...checkPlanSizes(plan),
    pageSize: checkPlanSize("options.pageSize", plan.pageSize),
    qDtype: checkPlanDtype("options.qDtype", plan.qDtype),
    ...checkKvDtype("options.kvDtype", plan.kvDtype),
    hasTokenScales: hasTokenScales(plan.kvScales),
  };
}

/** A plan of what is known to be right. */
export function pagedPlan(
  sizes: CheckedSizes,
  settings: AttentionSettings,
  seen: Pick<AttentionProblem, "causal" | "mask" | "variant">,
  { layout, ...level }: PagedLevel & { readonly layout: KvLayout },
): PagedPlan {
  return withBatch(pagedFrame(sizes, settings, seen, layout), level);
}

/** A plan without its batch. */
type PagedFrame = Pick<PagedPlan, "problem" | "tensors" | "cache" | "given">;

/** A plan whose batch is empty. */
function pagedFrame(
  sizes: CheckedSizes,
  settings: AttentionSettings,
  seen: Pick<AttentionProblem, "causal" | "mask" | "variant">,
  layout: KvLayout,
): PagedFrame {
  const { numQoHeads, numKvHeads, headDim, headDimV, pageSize, qDtype, kDtype, vDtype } = sizes;
  const cache = likelyCache(layout, sizes);
  const problem = {
    ...settings,
    ...seen,
    numRequests: 0,
    numQoHeads,
    numKvHeads,
    headDim,
    headDimV,
    qDtype,
    kDtype,
    vDtype,
    qStrides: { token: numQoHeads * headDim, head: headDim },
    outStrides: { token: numQoHeads * headDimV, head: headDimV },
    kStrides: cache.kStrides,
    vStrides: cache.vStrides,
    kvScales: sizes.hasTokenScales ? scaleStrides({ numKvHeads, tokens: pageSize }) : null,
    pageSize,
    requests: new Uint32Array(0),
    pageTable: new Uint32Array(0),
  };
  const tensors = {
    q: { shape: [0, numQoHeads, headDim], dtype: qDtype },
    out: { shape: [0, numQoHeads, headDimV], dtype: settings.outDtype },
    lse: { shape: [0, numQoHeads], dtype: "float32" as DType },
  };
  return { problem: overCache({ problem }, cache), tensors, cache, given: null };
}

/** The same plan for another batch. */
function withBatch(
  { problem, tensors, cache, given }: PagedFrame,
  { qoIndptr, table }: PagedLevel,
): PagedPlan {
  const numRequests = qoIndptr.length - 1;
  const requests = new Uint32Array(numRequests * REQUEST_WORDS);
  for (let i = 0; i < numRequests; i++) {
    const to = i * REQUEST_WORDS;
    requests[to] = qoIndptr[i];
    requests[to + 1] = qoIndptr[i + 1] - qoIndptr[i];
    requests[to + 2] = table.lengths[i];
    requests[to + 3] = table.indptr[i];
  }
  const rows = qoIndptr[numRequests];
  const { indices } = table;
  let lastPage = -1;
  let at = -1;
  for (let i = 0; i < indices.length; i++) if (indices[i] > lastPage) lastPage = indices[at = i];
  return {
    problem: { ...problem, numRequests, requests, pageTable: indices },
    tensors: {
      q: withRows(tensors.q, rows),
      out: withRows(tensors.out, rows),
      lse: withRows(tensors.lse, rows),
    },
    cache,
    table,
    lastPage,
    lastPageOf: table.indptr.findIndex((_, request) => table.indptr[request + 1] > at),
    given,
  };
}

function withRows({ shape, dtype }: TensorSpec, rows: number): TensorSpec {
  return { shape: [rows, ...shape.slice(1)], dtype };
}

/** How the cache of these sizes most likely lies: as one tensor, if that can be. */
function likelyCache(layout: KvLayout, sizes: CacheSizes): CachePages {
  const canBeOne = sizes.headDim === sizes.headDimV && sizes.kDtype === sizes.vDtype;
  return cacheOf(layout, sizes, canBeOne ? 1 : 2);
}

/** The same cache as a pair of tensors. */
export function asPair(layout: KvLayout, sizes: CacheSizes): CachePages {
  return cacheOf(layout, sizes, 2);
}

type CacheSizes = Pick<
  CachePages,
  "pageSize" | "numKvHeads" | "headDim" | "headDimV" | "kDtype" | "vDtype"
>;

function cacheOf(
  layout: KvLayout,
  { pageSize, numKvHeads, headDim, headDimV, kDtype, vDtype }: CacheSizes,
  numTensors: 1 | 2,
): CachePages {
  const page = (dim: number) =>
    layout === "NHD" ? [pageSize, numKvHeads, dim] : [numKvHeads, pageSize, dim];
  const shapes = numTensors === 1
    ? [[1, 2, ...page(headDim)]]
    : [[1, ...page(headDim)], [1, ...page(headDimV)]];
  return cachePages(
    shapes.map((shape, i) => ({ shape, dtype: i === 0 ? kDtype : vDtype })),
    layout,
  );
}
