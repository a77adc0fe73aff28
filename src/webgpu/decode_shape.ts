/**
 * How the decode kernel is laid out for a problem: how lanes hold a cache row, how many rows and heads
 * are in flight. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { LimitError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import {
  DECODE_TUNING_NAMES,
  type DecodeTuning,
  decodeTuning,
  MAX_BLOCK_HEADS,
  MAX_LANE_VALUES,
} from "./decode_tuning.ts";
import { cacheFormats } from "./piece_parts.ts";

/** Elements of a quad: what shaders read of q and write of out at once. */
export const QUAD = 4;
/** All kernels read rows in multiples of so many elements. */
export const HEAD_DIM_MULTIPLE = 8;
/** Workgroup memory in which the teams' outputs are merged, some quads a lane at a time. */
const MERGE_BYTES = 4096;
/** Workgroup memory of the portable rung's sums. */
const PORTABLE_BYTES = 8192;

/** The layout of the kernel, as the constants of shaders/decode.wgsl. */
export interface DecodeShape {
  readonly rung: "subgroups" | "workgroup";
  readonly tuning: DecodeTuning;
  readonly constants: Readonly<Record<string, number>>;
  /** Elements of a piece, in which the strides of k and v are counted. */
  readonly pieceElements: number;
  /** Whether some lanes of a team have no piece in some slot. */
  readonly isPadded: boolean;
  /** Whether the subgroups rung hands weights to a team's lanes through workgroup memory. */
  readonly gathersInMemory: boolean;
  /** Blocks of query heads of one KV head. */
  readonly headBlocks: number;
  /** Keys that a workgroup takes in one step. */
  readonly stepKeys: number;
}

/**
 * Lays the kernel out. Throws `LimitError` for head dims that it cannot read.
 *
 * @param before The layout for a problem that is the same but for its batch: it is given again where
 *   the tuning is the same too.
 */
export function decodeShape(
  problem: AttentionProblem,
  capabilities: Capabilities,
  override?: Partial<DecodeTuning>,
  before?: DecodeShape,
): DecodeShape {
  const { headDim } = problem;
  if (headDim % HEAD_DIM_MULTIPLE !== 0) {
    throw new LimitError("q", {
      got: `a head dim of ${headDim}`,
      expected: `a multiple of ${HEAD_DIM_MULTIPLE} on WebGPU`,
      hint: "Pad the heads with zeros and give smScale, or use the WASM backend.",
    });
  }
  const { subgroups, limits } = capabilities;
  const rung = subgroups ? "subgroups" : "workgroup";
  const group = problem.numQoHeads / problem.numKvHeads;
  const headBlocks = Math.ceil(group / MAX_BLOCK_HEADS);
  const blockHeads = Math.ceil(group / headBlocks);
  const { elementBytes: bytes, nanMarks } = cacheFormats(problem, capabilities);
  const totalKeys = keysOf(problem) * problem.numKvHeads * headBlocks;
  const needs = { rung, elementBytes: bytes, nanMarks, blockHeads, totalKeys } as const;
  const tuning = { ...decodeTuning(needs), ...override };
  if (before && DECODE_TUNING_NAMES.every((name) => before.tuning[name] === tuning[name])) {
    return before;
  }

  // With rotary encoding a lane holds both halves of a pair: each half of the row is split alike.
  const halves = problem.rope ? 2 : 1;
  const unit = headDim / halves;
  const pieceBytes =
    [16, 8, 4].find((piece) =>
      piece <= tuning.laneElements * bytes && unit % (piece / bytes) === 0
    ) ?? QUAD * bytes;
  const pieceElements = pieceBytes / bytes;
  const unitPieces = unit / pieceElements;
  const team = Math.min(
    powerOfTwoFrom(headDim / tuning.laneElements),
    powerOfTwoFrom(unitPieces),
    subgroups?.min ?? 16,
  );
  const unitSlots = Math.ceil(unitPieces / team);
  const slots = unitSlots * halves;
  const laneElements = slots * pieceElements;

  const heads = clamp(
    MAX_LANE_VALUES / laneElements,
    1,
    Math.min(tuning.heads, powerOfTwoFrom(blockHeads)),
  );
  const mostParts = Math.max(1, Math.floor(limits.maxComputeInvocationsPerWorkgroup / team));
  const parts = Math.min(Math.ceil(blockHeads / heads), mostParts);
  const lanes = team * parts;
  const teams = clamp(tuning.workgroup / lanes, 1, mostParts);
  const workgroup = lanes * teams;
  const values = rung === "workgroup" ? PORTABLE_BYTES / (4 * workgroup) : 64;
  const rows = powerOfTwoUpTo(
    Math.min(tuning.rows, values / heads, Math.max(1, 2 * MAX_LANE_VALUES / laneElements)),
  );

  const halvings = rung === "workgroup" ? 0 : Math.min(twosIn(rows * heads), Math.log2(team));
  const own = rows * heads / 2 ** halvings;
  const copies = team / 2 ** halvings;
  const laneQuads = laneElements / QUAD;
  return {
    rung,
    tuning,
    constants: {
      WORKGROUP: workgroup,
      TEAM: team,
      TEAMS: teams,
      PARTS: parts,
      ROWS: rows,
      HEADS: heads,
      VALUES: rows * heads,
      HALVINGS: halvings,
      STAGES: Math.log2(team),
      OWN: own,
      COPIES: copies,
      REFS: Math.min(own, heads),
      OWN_ROWS: own / Math.min(own, heads),
      ROW_STRIDE: copies * Math.max(1, heads / own),
      PIECES: unitPieces * halves,
      HALF_PIECES: unitPieces,
      SLOTS: slots,
      HALF_SLOTS: unitSlots,
      PIECE_QUADS: pieceElements / QUAD,
      LANE_QUADS: laneQuads,
      MERGE_QUADS: largestDivisor(laneQuads, MERGE_BYTES / (16 * workgroup)),
      LOOKUPS: hasOneLookup(problem, rows) ? 1 : rows,
      PAGE_SIZE: problem.pageSize,
      ROPE_QUADS: headDim / 2 / QUAD,
    },
    pieceElements,
    isPadded: unitSlots * team !== unitPieces,
    gathersInMemory: rung === "subgroups" && tuning.memory === 1 && rows * heads % 4 === 0,
    headBlocks: Math.ceil(group / (heads * parts)),
    stepKeys: teams * rows,
  };
}

/**
 * Whether no page ends among the rows that a team has in flight. Stretches are whole steps, but begin
 * anywhere under a window.
 */
function hasOneLookup(
  { pageTable, pageSize, windowLeft }: AttentionProblem,
  rows: number,
): boolean {
  return pageTable === null || (windowLeft === null && pageSize % rows === 0);
}

/** The keys of all requests. */
function keysOf({ requests }: AttentionProblem): number {
  let keys = 0;
  for (let at = 2; at < requests.length; at += REQUEST_WORDS) keys += requests[at];
  return keys;
}

/** The whole part of `n`, held between `low` and `high`. */
function clamp(n: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, Math.floor(n)));
}

/** The smallest power of two that is at least `n`. */
function powerOfTwoFrom(n: number): number {
  return 2 ** Math.max(0, Math.ceil(Math.log2(n)));
}

/** The largest power of two that is at most `n`, and at least 1. */
function powerOfTwoUpTo(n: number): number {
  return 2 ** Math.max(0, Math.floor(Math.log2(n)));
}

/** How often 2 divides `n`. */
function twosIn(n: number): number {
  return Math.log2(n & -n);
}

/** The largest divisor of `n` that is at most `bound`. */
function largestDivisor(n: number, bound: number): number {
  for (let divisor = Math.min(n, Math.floor(bound)); divisor > 1; divisor--) {
    if (n % divisor === 0) return divisor;
  }
  return 1;
}
