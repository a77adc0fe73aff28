/**
 * Planning of decode: from a problem and a device's capabilities to the kernel, its tables and its
 * dispatches. Pure; tested without a GPU.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import { LimitError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import { type KeyRange, scheduleKeys } from "./decode_schedule.ts";
import { type DecodeShape, decodeShape } from "./decode_shape.ts";
import type { DecodeTuning } from "./decode_tuning.ts";
import { type Region, regionsOf, type Span, type Window, windowOf } from "./decode_windows.ts";
import { inputModule, outputModule } from "./formats.ts";
import { foldGrid } from "./grid.ts";
import type { KernelRequest } from "./kernels.ts";
import { type MergePlan, planMerge } from "./merge_plan.ts";
import { cacheFormats, formatNames, pieceParts } from "./piece_parts.ts";
import { checkScales, pagesOf } from "./scale_limits.ts";

/** All that decode does for one problem. */
export interface DecodePlan {
  readonly kernel: KernelRequest;
  /** Why this variant, for the report. */
  readonly reason: string;
  readonly shape: DecodeShape;
  readonly dispatches: readonly DecodeDispatch[];
  /** Where requests are split: the states in between, and the merge that ends them. */
  readonly split: {
    /** Rows of partial results, each [numQoHeads, headDim] in float32, with its lse. */
    readonly states: number;
    readonly merge: MergePlan;
  } | null;
}

/** Where the tokens of a region end that has all tokens of its pages. */
const ALL_TOKENS = 2 ** 32 - 1;

/** One dispatch of shaders/decode.wgsl. */
export interface DecodeDispatch {
  readonly stretches: readonly Stretch[];
  readonly heads: Span;
  readonly numWork: number;
  readonly grid: readonly [number, number];
  /** The parts of k and v that are bound; null is all. */
  readonly windows: { readonly k: Window; readonly v: Window } | null;
}

/** A stretch of keys, with the row that its result goes to. */
export interface Stretch extends KeyRange {
  readonly outRow: number;
}

/** Plans a decode problem. Throws `LimitError`, or `ShaderError` where no exact way exists. */
export function planDecode(
  problem: AttentionProblem,
  capabilities: Capabilities,
  tuning?: Partial<DecodeTuning>,
): DecodePlan {
  const shape = decodeShape(problem, capabilities, tuning);
  checkBindings(problem, capabilities);
  checkScales(problem, pagesOf(problem), capabilities.limits);
  const regions = planRegions(problem, capabilities);
  const lists = assignRows(problem, shape, regions);
  const counts = new Uint32Array(problem.numRequests);
  for (const list of lists.values()) for (const { request } of list) counts[request]++;
  const isSplit = counts.some((count) => count > 1);
  const dispatches = regions.flatMap((region): DecodeDispatch[] => {
    const stretches = lists.get(keysOf(region))!;
    if (stretches.length === 0) return [];
    const { heads } = region;
    const numWork = stretches.length * (heads[1] - heads[0]) * shape.headBlocks;
    const windows = regions.length === 1 ? null : {
      k: windowOf(region, windowOptions(problem, capabilities, "k")),
      v: windowOf(region, windowOptions(problem, capabilities, "v")),
    };
    const grid = foldGrid(numWork, capabilities.limits);
    return [{ stretches, heads, numWork, grid, windows }];
  });
  return {
    kernel: kernelOf(problem, capabilities, shape, isSplit),
    reason: reasonOf(problem, capabilities, shape),
    shape,
    dispatches,
    split: isSplit ? planStates(problem, capabilities, counts) : null,
  };
}

/** Regions of the same keys share their stretches: they differ in heads, of which a state has all. */
function keysOf({ pages, tokens }: Region): string {
  return `${pages} ${tokens}`;
}

/** The stretches of each region's keys, with the rows of their results. */
function assignRows(
  problem: AttentionProblem,
  shape: DecodeShape,
  regions: readonly Region[],
): Map<string, readonly Stretch[]> {
  const { numRequests, requests } = problem;
  const stretchesOf = planStretches(problem, shape);
  const lists = new Map<string, readonly KeyRange[]>();
  for (const region of regions) {
    if (!lists.has(keysOf(region))) lists.set(keysOf(region), stretchesOf(region));
  }
  const counts = new Uint32Array(numRequests);
  for (const list of lists.values()) for (const { request } of list) counts[request]++;
  // Without splits, results go straight to their rows of out; else a request's states follow each
  // other, in the order of requests.
  const isSplit = counts.some((count) => count > 1);
  const next = new Uint32Array(numRequests);
  for (let request = 0, first = 0; request < numRequests; request++) {
    next[request] = isSplit ? first : requests[request * REQUEST_WORDS];
    first += counts[request];
  }
  const withRows = (list: readonly KeyRange[]) =>
    list.map(({ request, first, end }): Stretch => ({
      request,
      first,
      end,
      outRow: next[request]++,
    }));
  return new Map([...lists].map(([key, list]) => [key, withRows(list)]));
}

/** The keys that each request's query sees: all, or those of its window. */
export function visibleKeys(
  { requests, windowLeft }: Pick<AttentionProblem, "requests" | "windowLeft">,
  request: number,
): KeyRange {
  const end = requests[request * REQUEST_WORDS + 2];
  const first = windowLeft === null ? 0 : Math.max(0, end - 1 - windowLeft);
  return { request, first, end };
}

/** Schedules all requests at once, and cuts the schedule by regions. */
function planStretches(
  problem: AttentionProblem,
  shape: DecodeShape,
): (region: Region) => readonly KeyRange[] {
  const { numRequests, numKvHeads, requests } = problem;
  const ranges = Array.from({ length: numRequests }, (_, i) => visibleKeys(problem, i));
  const stretches = scheduleKeys(ranges, {
    workgroupsPerStretch: numKvHeads * shape.headBlocks,
    workgroups: shape.tuning.workgroups,
    minKeys: shape.tuning.minKeys,
    stepKeys: shape.stepKeys,
  });
  return ({ pages, tokens }) =>
    tokens[1] === ALL_TOKENS ? stretches : stretches.flatMap((stretch): KeyRange[] => {
      const page = requests[stretch.request * REQUEST_WORDS + 3];
      if (problem.pageTable === null && (page < pages[0] || page >= pages[1])) return [];
      const first = Math.max(stretch.first, tokens[0]);
      const end = Math.min(stretch.end, tokens[1]);
      if (first < end) return [{ ...stretch, first, end }];
      // A request without keys still has a result, which the first region writes.
      return stretch.first === stretch.end && tokens[0] === 0 ? [stretch] : [];
    });
}

/** The whole cache, or the parts that fit a binding. */
function planRegions(problem: AttentionProblem, capabilities: Capabilities): Region[] {
  const { numRequests, numKvHeads, requests, pageTable } = problem;
  const pages = pagesOf(problem);
  let tokens = 1;
  for (let request = 0; request < numRequests; request++) {
    tokens = Math.max(tokens, requests[request * REQUEST_WORDS + 2]);
  }
  if (pageTable !== null) tokens = Math.min(tokens, problem.pageSize);
  const whole: Region = { pages: [0, pages], tokens: [0, tokens], heads: [0, numKvHeads] };
  const regions = [whole].flatMap((region) =>
    regionsOf(region, windowOptions(problem, capabilities, "k"))
  ).flatMap((region) => regionsOf(region, windowOptions(problem, capabilities, "v")));
  if (regions.length > 1 && pageTable !== null) {
    throw new LimitError("kvCache", {
      got: `a paged cache of ${
        windowOf(whole, windowOptions(problem, capabilities, "k")).size
      } bytes`,
      expected: `at most ${capabilities.limits.maxStorageBufferBindingSize}, one binding`,
      hint: "Give k and v as a pair of tensors, or split the pages over several caches.",
    });
  }
  return pageTable === null ? regions : [{ ...whole, tokens: [0, ALL_TOKENS] }];
}

function windowOptions(
  { kStrides, vStrides, headDim, kDtype, vDtype }: AttentionProblem,
  { limits }: Capabilities,
  name: "k" | "v",
) {
  return {
    strides: name === "k" ? kStrides : vStrides,
    headDim,
    elementBytes: bytesPerElement(name === "k" ? kDtype : vDtype),
    bindingBytes: limits.maxStorageBufferBindingSize,
    alignment: limits.minStorageBufferOffsetAlignment,
  };
}

/** q and the results are bound whole. */
function checkBindings(
  { numRequests, numQoHeads, headDim, qDtype, outDtype }: AttentionProblem,
  { limits }: Capabilities,
): void {
  for (const [name, dtype] of [["q", qDtype], ["out", outDtype]] as const) {
    const bytes = numRequests * numQoHeads * headDim * bytesPerElement(dtype);
    if (bytes <= limits.maxStorageBufferBindingSize) continue;
    throw new LimitError(name, {
      got: `${bytes} bytes`,
      expected: `at most ${limits.maxStorageBufferBindingSize}, this device's ` +
        "maxStorageBufferBindingSize",
      hint: "Split the batch, or request the GPUDevice with the adapter's limits.",
    });
  }
}

/** The merge of the states of every request, of which each has so many. */
function planStates(
  problem: AttentionProblem,
  capabilities: Capabilities,
  counts: Uint32Array,
): NonNullable<DecodePlan["split"]> {
  const { numRequests, numQoHeads, headDim, outDtype, sinks, lseScale } = problem;
  const rows = new Uint32Array(numRequests * 4);
  let states = 0;
  counts.forEach((count, request) => {
    rows.set([states, count, 0, 0], request * 4);
    states += count;
  });
  const limit = capabilities.limits.maxStorageBufferBindingSize;
  const stateBytes = states * numQoHeads * headDim * 4;
  if (stateBytes > limit) {
    throw new LimitError("k", {
      got: `${stateBytes} bytes of partial results`,
      expected: `at most ${limit}, one binding of this device`,
      hint: "Split the batch.",
    });
  }
  const merge = planMerge(
    { numRows: numRequests, numHeads: numQoHeads, headDim, vDtype: "float32", outDtype, rows },
    capabilities,
    { hasSinks: sinks !== null, lseScale },
  );
  return { states, merge };
}

function kernelOf(
  problem: AttentionProblem,
  capabilities: Capabilities,
  shape: DecodeShape,
  isSplit: boolean,
): KernelRequest {
  const { rung, constants: c } = shape;
  const formats = cacheFormats(problem, capabilities);
  const pieces = pieceParts(formats, shape.pieceElements);
  const outDtype = isSplit ? "float32" : problem.outDtype;
  const conditions = {
    subgroups: rung === "subgroups",
    padded: shape.isPadded,
    early: shape.tuning.early === 1,
    gather_memory: shape.gathersInMemory,
    paged: problem.pageTable !== null,
    one_lookup: c.LOOKUPS === 1,
    alike: problem.pageTable !== null && sameStrides(problem),
    rope: problem.rope !== null,
    alibi: problem.alibiSlopes !== null,
    soft_cap: problem.logitsSoftCap !== null,
    sinks: problem.sinks !== null && !isSplit,
    token_scales: problem.kvScales !== null,
    ...pieces.conditions,
  };
  const variants = (["paged", "token_scales", "rope", "alibi", "soft_cap", "sinks"] as const)
    .filter((name) => conditions[name]);
  const name = [
    `decode.${rung}`,
    `q-${problem.qDtype}`,
    formatNames(formats),
    `out-${outDtype}`,
    `d${problem.headDim}.heads${c.HEADS}x${c.PARTS}.team${c.TEAM}.piece${shape.pieceElements}`,
    `rows${c.ROWS}.wg${c.WORKGROUP}${conditions.early ? ".early" : ""}${
      conditions.gather_memory ? ".memory" : ""
    }`,
    ...variants,
    ...(conditions.paged
      ? [`page${c.PAGE_SIZE}by${c.LOOKUPS}${conditions.alike ? ".alike" : ""}`]
      : []),
  ].join(".");
  return {
    name,
    main: "decode",
    modules: [
      ...["address", "logits", "params", "rope", "rows", "formats/rounding"],
      ...(conditions.token_scales ? ["token_scales"] : []),
    ],
    roles: {
      team: `team/${rung}`,
      ...pieces.roles,
      q_format: inputModule(problem.qDtype, capabilities),
      out_format: outputModule(outDtype),
    },
    instances: pieces.instances,
    constants: { ...c, PAGE_SIZE: conditions.paged ? c.PAGE_SIZE : 1 },
    conditions,
    bindings: ["uniform", "read", "read", "read", "read", "write", "write", "read", "read"],
  };
}

/** Whether a key and its value lie at the same place of their pages. */
function sameStrides({ kStrides, vStrides }: AttentionProblem): boolean {
  return kStrides.page === vStrides.page && kStrides.token === vStrides.token;
}

function reasonOf(
  { numQoHeads, numKvHeads }: AttentionProblem,
  { subgroupsReason }: Capabilities,
  { constants: c }: DecodeShape,
): string {
  return `${subgroupsReason}; ${c.HEADS * c.PARTS} places for the ${
    numQoHeads / numKvHeads
  } query ` +
    `heads of a KV head share each cache row, which ${c.TEAM} lanes hold`;
}
