/**
 * Planning of the decode kernel: from a problem and a device's capabilities to constants, roles and
 * grid. Pure; tested without a GPU.
 *
 * @module
 */

import type { AttentionProblem, CacheStrides, RowStrides } from "../attention_problem.ts";
import { bytesPerElement, type DType, isFp8DType } from "../dtype.ts";
import { LimitError, ShaderError } from "../errors.ts";
import type { Capabilities, DispatchLimits } from "./capabilities.ts";
import type { KernelRequest } from "./kernels.ts";

/** A dispatch of shaders/decode.wgsl. */
export interface DecodePlan {
  readonly kernel: KernelRequest;
  /** Why this variant, for the report. */
  readonly reason: string;
  /** What the kernel is told. */
  readonly params: DecodeParams;
  readonly grid: readonly [number, number];
}

/** The fields of `Params` in shaders/params.wgsl, in its order. */
export interface DecodeParams {
  readonly numWork: number;
  readonly headBlocks: number;
  readonly numKvHeads: number;
  readonly numQoHeads: number;
  readonly group: number;
  readonly q: RowStrides;
  readonly out: RowStrides;
  readonly k: CacheStrides;
  readonly v: CacheStrides;
  readonly logitScale: number;
  readonly outScale: number;
}

/** What may be tuned for a GPU: the bench's sweep tries all combinations (bench/NOTES.md). */
export interface DecodeTuning {
  /** Query heads that one workgroup serves at most. */
  readonly maxHeads: number;
  /** Lanes that share a cache row at most. */
  readonly maxTeam: number;
  /** Lanes of a workgroup. */
  readonly workgroup: number;
  /** Rows that a team has in flight at most. */
  readonly maxRows: number;
  /**
   * Heads times elements of a lane at most: so many queries and so many sums are held in registers,
   * of which GPUs have about 255 a lane. More also compiles slowly on software adapters.
   */
  readonly maxLaneElements: number;
}

const TUNING: Readonly<Record<"subgroups" | "workgroup", DecodeTuning>> = {
  subgroups: { maxHeads: 8, maxTeam: 16, workgroup: 128, maxRows: 4, maxLaneElements: 64 },
  // Teams that meet in workgroup memory share it: fewer lanes.
  workgroup: { maxHeads: 8, maxTeam: 16, workgroup: 64, maxRows: 4, maxLaneElements: 64 },
};

/** Workgroup memory in which the teams' outputs are merged, some quads a lane at a time. */
const MERGE_BYTES = 8192;
/** Elements of a quad: what shaders read of q and write of out at once. */
const QUAD = 4;
/** All kernels read rows in multiples of so many elements. */
const HEAD_DIM_MULTIPLE = 8;

const LOG2_E = Math.LOG2E;

/**
 * Plans a decode problem. Throws `LimitError`, or `ShaderError` where no exact way exists.
 *
 * @param tuning Replaces constants of the rung; for the bench.
 */
export function planDecode(
  problem: AttentionProblem,
  capabilities: Capabilities,
  tuning?: Partial<DecodeTuning>,
): DecodePlan {
  const { headDim, numQoHeads, numKvHeads, kvDtype } = problem;
  if (headDim % HEAD_DIM_MULTIPLE !== 0) {
    throw new LimitError("q", {
      got: `a head dim of ${headDim}`,
      expected: `a multiple of ${HEAD_DIM_MULTIPLE} on WebGPU`,
      hint: "Pad the heads with zeros and give smScale, or use the WASM backend.",
    });
  }
  const rung = capabilities.subgroups ? "subgroups" : "workgroup";
  const tuned: DecodeTuning = { ...TUNING[rung], ...tuning };
  const { maxHeads, maxRows, maxLaneElements } = tuned;
  const widest = Math.min(tuned.maxTeam, capabilities.subgroups?.min ?? tuned.maxTeam);
  const group = numQoHeads / numKvHeads;
  // Pieces of 8 bytes where rows are no multiple of 16, or where lanes would hold too much with 16.
  const wide = splitRow(headDim, kvDtype, 16, widest);
  const isWide = wide !== null &&
    wide.laneElements * Math.min(group, maxHeads) <= maxLaneElements;
  const narrow = isWide ? null : splitRow(headDim, kvDtype, 8, widest);
  const { pieces, pieceElements, team, slots, laneElements } = narrow ?? wide!;
  const workgroup = Math.min(
    tuned.workgroup,
    capabilities.limits.maxComputeInvocationsPerWorkgroup,
  );
  const pieceQuads = pieceElements / QUAD;
  const laneQuads = laneElements / QUAD;

  const mostHeads = clamp(maxLaneElements / laneElements, 1, maxHeads);
  const headBlocks = Math.ceil(group / mostHeads);
  const heads = Math.ceil(group / headBlocks);
  const rows = clamp(maxRows * maxLaneElements / (laneElements * heads), 1, maxRows);

  const constants = {
    WORKGROUP: workgroup,
    TEAM: team,
    TEAMS: workgroup / team,
    ROWS: rows,
    HEADS: heads,
    VALUES: rows * heads,
    PIECES: pieces,
    SLOTS: slots,
    PIECE_QUADS: pieceQuads,
    LANE_QUADS: laneQuads,
    MERGE_QUADS: largestDivisor(laneQuads, MERGE_BYTES / (16 * workgroup)),
  };
  const roles = {
    team: `team/${rung}`,
    kv_format: formatModule(kvDtype, capabilities),
    q_format: formatModule(problem.qDtype, capabilities),
    out_format: formatModule(problem.outDtype, capabilities),
  };
  const numWork = problem.numRequests * numKvHeads * headBlocks;
  const name = [
    `decode.${rung}`,
    `q-${problem.qDtype}`,
    `kv-${roles.kv_format.replace("formats/", "")}`,
    `d${headDim}.piece${pieceElements}.heads${heads}.team${team}.rows${rows}.wg${workgroup}`,
  ].join(".");
  return {
    kernel: {
      name,
      main: "decode",
      roles,
      constants,
      conditions: { wide: narrow === null },
      bindings: ["uniform", "read", "read", "read", "read", "write", "write"],
    },
    reason:
      `${capabilities.subgroupsReason}; ${heads} of ${group} query heads of a KV head share ` +
      `each cache row, which ${team} lanes hold`,
    params: {
      numWork,
      headBlocks,
      numKvHeads,
      numQoHeads,
      group,
      q: rowStrides(problem.qStrides, QUAD),
      out: rowStrides(problem.outStrides, QUAD),
      k: cacheStrides(problem.kStrides, pieceElements),
      v: cacheStrides(problem.vStrides, pieceElements),
      logitScale: problem.logitScales[0] * LOG2_E,
      outScale: problem.outScales[0],
    },
    grid: foldGrid(numWork, capabilities.limits),
  };
}

/** Spreads `count` workgroups over x and y: a dimension takes 65,535 by WebGPU's default. */
export function foldGrid(
  count: number,
  { maxComputeWorkgroupsPerDimension: limit }: DispatchLimits,
): readonly [number, number] {
  const y = Math.ceil(count / limit);
  if (y > limit) {
    throw new LimitError("q", {
      got: `${count} workgroups (requests times heads)`,
      expected: `at most ${limit * limit}`,
      hint: "Split the batch.",
    });
  }
  return [Math.ceil(count / Math.max(1, y)), y];
}

const FORMAT_MODULE: Readonly<Record<string, string>> = {
  float32: "formats/f32",
  float16: "formats/f16",
  bfloat16: "formats/bf16",
};

function formatModule(dtype: DType, capabilities: Capabilities): string {
  if (!isFp8DType(dtype)) return FORMAT_MODULE[dtype];
  const { module, reason } = capabilities.fp8[dtype];
  if (module !== null) return module;
  throw new ShaderError(`decoding ${dtype}`, {
    got: reason,
    expected: "one way that is exact for all 256 codes",
    hint: "Use a 16-bit cache on this device, and please report it with device.report.",
  });
}

/** How a team of lanes holds a cache row. */
interface RowSplit {
  readonly pieceElements: number;
  readonly pieces: number;
  readonly team: number;
  /** Pieces of a lane. */
  readonly slots: number;
  readonly laneElements: number;
}

/** Splits a row into pieces of `pieceBytes` for a team of at most `widest` lanes, if it divides. */
function splitRow(
  headDim: number,
  dtype: DType,
  pieceBytes: 16 | 8,
  widest: number,
): RowSplit | null {
  const pieceElements = pieceBytes / bytesPerElement(dtype);
  const pieces = headDim / pieceElements;
  if (!Number.isInteger(pieces)) return null;
  // Only FP8 modules know pieces of 8 bytes.
  if (pieceBytes === 8 && !isFp8DType(dtype)) return null;
  const team = Math.min(powerOfTwoFrom(pieces), widest);
  const slots = Math.ceil(pieces / team);
  return { pieceElements, pieces, team, slots, laneElements: slots * pieceElements };
}

/** The whole part of `n`, held between `low` and `high`. */
function clamp(n: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, Math.floor(n)));
}

/** The smallest power of two that is at least `n`. */
function powerOfTwoFrom(n: number): number {
  return 2 ** Math.ceil(Math.log2(n));
}

/** The largest divisor of `n` that is at most `bound`. */
function largestDivisor(n: number, bound: number): number {
  for (let divisor = Math.min(n, Math.floor(bound)); divisor > 1; divisor--) {
    if (n % divisor === 0) return divisor;
  }
  return 1;
}

function rowStrides({ token, head }: RowStrides, unit: number): RowStrides {
  return { token: token / unit, head: head / unit };
}

function cacheStrides({ page, token, head }: CacheStrides, unit: number): CacheStrides {
  return { page: page / unit, token: token / unit, head: head / unit };
}
