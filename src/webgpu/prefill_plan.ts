/**
 * Planning of prefill: from a problem and a device's capabilities to the kernel and its dispatches.
 * Pure; tested without a GPU.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS, rowsOf } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import { LimitError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import { windowOf } from "./decode_windows.ts";
import { inputModule, outputModule } from "./formats.ts";
import { foldGrid } from "./grid.ts";
import type { KernelRequest } from "./kernels.ts";
import { type MergePlan, planMerge } from "./merge_plan.ts";
import { cacheFormats, formatNames, pieceParts } from "./piece_parts.ts";
import { schedulePrefill, type TileWork, visibleKeys } from "./prefill_schedule.ts";
import { type PrefillShape, prefillShape } from "./prefill_shape.ts";
import type { PrefillTuning } from "./prefill_tuning.ts";
import { checkScales, pagesOf } from "./scale_limits.ts";
import { callerCode } from "./variant.ts";

/** All that prefill does for one problem. */
export interface PrefillPlan {
  readonly family: "prefill";
  readonly kernel: KernelRequest;
  /** Why this variant, for the report. */
  readonly reason: string;
  readonly shape: PrefillShape;
  readonly dispatches: readonly PrefillDispatch[];
  /** Where keys are split: the states in between, and the merge that ends them. */
  readonly split: {
    /** Rows of partial results, each [numQoHeads, headDimV] in float32, with its lse. */
    readonly states: number;
    /** Of each request: its first state, and how many each of its queries has room for. */
    readonly requests: readonly { readonly first: number; readonly chunks: number }[];
    readonly merge: MergePlan;
  } | null;
}

/** One dispatch of shaders/prefill.wgsl. */
export interface PrefillDispatch {
  readonly works: readonly TileWork[];
  readonly numWork: number;
  readonly grid: readonly [number, number];
}

/**
 * Multiply-adds after which a dispatch ends, so that none takes long (10 ms on an H200), unless its
 * workgroups are too few to fill the device; more than the second number it never has (45 ms there).
 */
const ENOUGH_PRODUCTS = 2e11;
const MOST_PRODUCTS = 8e11;

/** Plans a prefill problem. Throws `LimitError`, or `ShaderError` where no exact way exists. */
export function planPrefill(
  problem: AttentionProblem,
  capabilities: Capabilities,
  tuning?: Partial<PrefillTuning>,
): PrefillPlan {
  const shape = prefillShape(problem, capabilities, tuning);
  checkBindings(problem, capabilities);
  checkScales(problem, pagesOf(problem), capabilities.limits);
  const { works, chunkKeys } = schedulePrefill(problem, {
    tileRows: shape.tileRows,
    tileKeys: shape.tileKeys,
    workgroups: shape.tuning.workgroups,
  });
  const isSplit = Number.isFinite(chunkKeys);
  const { numKvHeads } = problem;
  const dispatches = inDispatches(works, problem, shape).map((part): PrefillDispatch => {
    const numWork = part.length * numKvHeads;
    return { works: part, numWork, grid: foldGrid(numWork, capabilities.limits) };
  });
  return {
    family: "prefill",
    kernel: kernelOf(problem, capabilities, shape, isSplit),
    reason: reasonOf(problem, capabilities, shape),
    shape,
    dispatches,
    split: isSplit ? planStates(problem, capabilities, chunkKeys) : null,
  };
}

/**
 * Cuts the list where a dispatch would take long. Those with the shortest works come first: a GPU that
 * idled runs at a part of its clock for some tenths of a second.
 */
function inDispatches(
  works: readonly TileWork[],
  { headDim, headDimV, numKvHeads }: AttentionProblem,
  { tileRows, tuning: { workgroups } }: PrefillShape,
): TileWork[][] {
  const lists: TileWork[][] = [];
  let products = 0;
  for (const work of works) {
    const own = (work.end - work.first) * tileRows * (headDim + headDimV) * numKvHeads;
    const last = lists.at(-1);
    const most = last && last.length * numKvHeads < workgroups ? MOST_PRODUCTS : ENOUGH_PRODUCTS;
    if (!last || products + own > most) {
      lists.push([work]);
      products = own;
    } else {
      last.push(work);
      products += own;
    }
  }
  return lists.reverse();
}

/** All tensors are bound whole. */
function checkBindings(problem: AttentionProblem, { limits }: Capabilities): void {
  const { numQoHeads, numKvHeads, headDim, headDimV, requests } = problem;
  const limit = limits.maxStorageBufferBindingSize;
  const check = (name: string, bytes: number, hint: string) => {
    if (bytes <= limit) return;
    throw new LimitError(name, {
      got: `${bytes} bytes`,
      expected: `at most ${limit}, this device's maxStorageBufferBindingSize`,
      hint: `${hint}, or request the GPUDevice with the adapter's limits.`,
    });
  };
  const rows = rowsOf(problem) * numQoHeads;
  check("q", rows * headDim * bytesPerElement(problem.qDtype), "Split the batch");
  check("out", rows * headDimV * bytesPerElement(problem.outDtype), "Split the batch");
  const pages = pagesOf(problem);
  let tokens = 1;
  for (let at = 0; at < requests.length; at += REQUEST_WORDS) {
    tokens = Math.max(tokens, Math.min(requests[at + 2], problem.pageSize));
  }
  for (const name of ["k", "v"] as const) {
    const { size } = windowOf({ pages: [0, pages], tokens: [0, tokens], heads: [0, numKvHeads] }, {
      strides: name === "k" ? problem.kStrides : problem.vStrides,
      headDim: name === "k" ? headDim : headDimV,
      elementBytes: bytesPerElement(name === "k" ? problem.kDtype : problem.vDtype),
      bindingBytes: limit,
      alignment: limits.minStorageBufferOffsetAlignment,
    });
    check(name, size - 16, "Split the batch or the heads");
  }
  if (problem.mask) {
    check("options.customMask", 4 * problem.mask.words.length, "Use causal or windowLeft");
  }
}

/** The states of every query, a chunk of its request's keys each, and their merge. */
function planStates(
  problem: AttentionProblem,
  capabilities: Capabilities,
  chunkKeys: number,
): NonNullable<PrefillPlan["split"]> {
  const { numRequests, numQoHeads, headDimV, outDtype, sinks, lseScale, requests } = problem;
  const rows = new Uint32Array(rowsOf(problem) * 4);
  const places: { first: number; chunks: number }[] = [];
  let states = 0;
  for (let request = 0; request < numRequests; request++) {
    const [qRow, qoLen, kvLen] = requests.subarray(request * REQUEST_WORDS);
    const chunks = Math.max(1, Math.ceil(kvLen / chunkKeys));
    places.push({ first: states, chunks });
    for (let query = 0; query < qoLen; query++) {
      const [first, end] = visibleKeys(problem, request, query, query);
      const from = Math.floor(first / chunkKeys);
      const count = Math.ceil(end / chunkKeys) - from;
      rows.set([states + query * chunks + from, count, 0, 0], (qRow + query) * 4);
    }
    states += qoLen * chunks;
  }
  const limit = capabilities.limits.maxStorageBufferBindingSize;
  const bytes = states * numQoHeads * headDimV * 4;
  if (bytes > limit) {
    throw new LimitError("q", {
      got: `${bytes} bytes of partial results`,
      expected: `at most ${limit}, one binding of this device`,
      hint: "Split the batch.",
    });
  }
  const merge = planMerge(
    {
      numRows: rows.length / 4,
      numHeads: numQoHeads,
      headDim: headDimV,
      vDtype: "float32",
      outDtype,
      rows,
    },
    capabilities,
    { hasSinks: sinks !== null, lseScale },
  );
  return { states, requests: places, merge };
}

function kernelOf(
  problem: AttentionProblem,
  capabilities: Capabilities,
  shape: PrefillShape,
  isSplit: boolean,
): KernelRequest {
  const { rung, constants: c } = shape;
  const formats = cacheFormats(problem, capabilities);
  const pieces = pieceParts(formats, shape.pieceElements);
  const outDtype = isSplit ? "float32" : problem.outDtype;
  const { headDim, headDimV, variant } = problem;
  const conditions = {
    subgroups: rung === "subgroups",
    ragged: shape.isRagged,
    masked: problem.mask !== null,
    paged: problem.pageTable !== null,
    rope: problem.rope !== null,
    alibi: problem.alibiSlopes !== null,
    soft_cap: problem.logitsSoftCap !== null,
    sinks: problem.sinks !== null && !isSplit,
    token_scales: problem.kvScales !== null,
    caller_transform: variant?.logitsTransform != null,
    caller_mask: variant?.logitsMask != null,
    ...pieces.conditions,
  };
  const variants = ([
    "masked",
    "paged",
    "token_scales",
    "rope",
    "alibi",
    "soft_cap",
    "sinks",
    "caller_transform",
    "caller_mask",
  ] as const)
    .filter((name) => conditions[name]);
  const name = [
    `prefill.${rung}`,
    `q-${problem.qDtype}`,
    formatNames(formats),
    `out-${outDtype}`,
    `d${headDim}${headDimV === headDim ? "" : `x${headDimV}`}`,
    `rows${c.ROW_LANES}x${c.LANE_ROWS}.keys${c.KEY_LANES}x${c.LANE_KEYS}by${c.RUN}`,
    `chunk${c.CHUNK_QUADS}.stage${c.STAGE_QUADS}.by${c.UNROLL}.piece${shape.pieceElements}`,
    ...variants,
    ...(conditions.paged ? [`page${c.PAGE_SIZE}`] : []),
  ].join(".");
  return {
    name,
    main: "prefill",
    modules: [
      "address",
      "logits",
      "rope",
      "formats/rounding",
      "prefill/stage",
      "prefill/tiles",
      "prefill/variant",
      "prefill/weights",
      ...(conditions.token_scales ? ["prefill/scales", "token_scales"] : []),
    ],
    roles: {
      params: "prefill/params",
      rows: `prefill/rows_${rung}`,
      ...pieces.roles,
      q_format: inputModule(problem.qDtype, capabilities),
      out_format: outputModule(outDtype),
    },
    instances: { ...pieces.instances, ...PRODUCTS },
    constants: { ...c, PAGE_SIZE: conditions.paged ? c.PAGE_SIZE : 1 },
    conditions,
    bindings: ["uniform", "read", "read", "read", "read", "write", "write", "read", "read"],
    caller: variant ? callerCode(variant) : undefined,
  };
}

/** The two products, by what shaders/prefill/product.wgsl calls their constants. */
const PRODUCTS: KernelRequest["instances"] = {
  scores_product: {
    file: "prefill/product",
    words: { QUADS: "KEY_QUADS", DEPTH: "CHUNK_QUADS", PACK: "PACKED" },
  },
  values_product: {
    file: "prefill/product",
    words: { QUADS: "VALUE_QUADS", DEPTH: "STAGE_QUADS", PACK: "UNPACKED" },
  },
};

function reasonOf(
  { numQoHeads, numKvHeads }: AttentionProblem,
  { subgroupsReason }: Capabilities,
  { tileRows, tileKeys, rung }: PrefillShape,
): string {
  const meets = rung === "subgroups" ? subgroupsReason : "rows meet in workgroup memory";
  return `${meets}; tiles of ${tileRows} rows (the ${
    numQoHeads / numKvHeads
  } heads of a group in ` +
    `turn) and ${tileKeys} keys`;
}
