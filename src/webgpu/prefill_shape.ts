/**
 * How the prefill kernel is laid out for a problem: its tiles, and what each lane has of them. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { LimitError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import { HEAD_DIM_MULTIPLE, QUAD } from "./decode_shape.ts";
import { cacheFormats } from "./piece_parts.ts";
import { MAX_LANE_OUTPUT, type PrefillTuning, prefillTuning } from "./prefill_tuning.ts";

/** Vectors in workgroup memory that move a step's rows, and a quad of steps, to other banks. */
const STEP_FILLING = 1;
const QUAD_FILLING = 2;

/** The layout of the kernel, as the constants of shaders/prefill.wgsl. */
export interface PrefillShape {
  /** How lanes that share rows meet. */
  readonly rung: "subgroups" | "workgroup";
  readonly tuning: PrefillTuning;
  readonly constants: Readonly<Record<string, number>>;
  /** Elements of a piece, in which the strides of k and v are counted. */
  readonly pieceElements: number;
  /** Whether rows of q and k do not fill their chunks. */
  readonly isRagged: boolean;
  readonly tileRows: number;
  readonly tileKeys: number;
  /** Bytes of workgroup memory. */
  readonly memory: number;
}

/** Lays the kernel out. Throws `LimitError` for head dims that it cannot take. */
export function prefillShape(
  problem: AttentionProblem,
  capabilities: Capabilities,
  override: Partial<PrefillTuning> = {},
): PrefillShape {
  const { headDim, headDimV, rope } = problem;
  for (const dim of [headDim, headDimV]) {
    if (dim % HEAD_DIM_MULTIPLE === 0) continue;
    throw new LimitError(dim === headDim ? "q" : "v", {
      got: `a head dim of ${dim}`,
      expected: `a multiple of ${HEAD_DIM_MULTIPLE} on WebGPU`,
      hint: "Pad the heads with zeros and give smScale, or use the WASM backend.",
    });
  }
  const { limits, subgroups } = capabilities;
  const memory = limits.maxComputeWorkgroupStorageSize;
  const tuning = {
    ...prefillTuning({ memory, rows: mostRows(problem), headDimV }),
    ...override,
  };
  const { rowLanes, keyLanes, laneKeys } = tuning;
  const rung = subgroups && subgroups.min >= keyLanes ? "subgroups" : "workgroup";
  const valueQuads = Math.ceil(headDimV / QUAD / keyLanes);
  const laneRows = Math.max(
    QUAD,
    powerOfTwoUpTo(Math.min(tuning.laneRows, MAX_LANE_OUTPUT / (QUAD * valueQuads))),
  );
  const workgroup = rowLanes * keyLanes;
  const halves = rope ? 2 : 1;

  // Stages shrink until the tiles fit.
  let chunkQuads = Math.max(halves, Math.min(tuning.chunkQuads, powerOfTwoFrom(headDim / QUAD)));
  const { run } = tuning;
  let stageQuads = Math.min(tuning.stageQuads, keyLanes * laneKeys / QUAD);
  const columnQuads = Math.max(laneKeys / QUAD, valueQuads);
  const packed = powerOfTwoUpTo(columnQuads / (laneKeys / QUAD));
  const rowTiles = () => Math.max(chunkQuads, stageQuads);
  const columnTiles = () => Math.max(Math.ceil(chunkQuads / packed), stageQuads);
  const bytes = () => {
    const rows = QUAD * (rowLanes * laneRows / QUAD + STEP_FILLING) + QUAD_FILLING;
    const columns = QUAD * columnQuads * keyLanes + QUAD_FILLING;
    return 16 * (rowTiles() * rows + columnTiles() * columns) + 16 + 4 * rowLanes * laneRows +
      (rung === "workgroup" ? 4 * workgroup * laneRows : 0);
  };
  while (bytes() > memory) {
    if (stageQuads > 1 && (stageQuads >= chunkQuads / packed || chunkQuads === halves)) {
      stageQuads /= 2;
    } else if (chunkQuads > halves) chunkQuads /= 2;
    else break;
  }
  if (bytes() > memory) {
    throw new LimitError("q", {
      got: `head dims of ${headDim} and ${headDimV}, which take ${bytes()} bytes a workgroup`,
      expected: `at most ${memory}, this device's maxComputeWorkgroupStorageSize`,
      hint: "Use the WASM backend, or a device with more workgroup memory.",
    });
  }

  const { elementBytes } = cacheFormats(problem, capabilities);
  // Every lane has its part of the keys.
  const share = Math.max(1, keyLanes * laneKeys * chunkQuads / halves / workgroup);
  const pieceElements =
    [16, 8, 4].map((piece) => piece / elementBytes).find((elements) =>
      elements >= QUAD && elements / QUAD <= Math.min(share, chunkQuads / halves) &&
      (headDim / halves) % elements === 0 && headDimV % elements === 0 &&
      (keyLanes * valueQuads) % (elements / QUAD) === 0
    ) ?? QUAD;
  const pieceQuads = pieceElements / QUAD;
  const stageKeys = QUAD * stageQuads;
  const blockKeys = run * keyLanes;
  const blocks = laneKeys / (run * Math.max(1, stageKeys / blockKeys));
  const tileRows = rowLanes * laneRows;
  const tileKeys = keyLanes * laneKeys;
  const loads = (count: number) => Math.ceil(count / workgroup);
  return {
    rung,
    tuning,
    constants: {
      WORKGROUP: workgroup,
      ROW_LANES: rowLanes,
      KEY_LANES: keyLanes,
      LANE_ROWS: laneRows,
      LANE_KEYS: laneKeys,
      ROW_QUADS: laneRows / QUAD,
      KEY_QUADS: laneKeys / QUAD,
      TILE_ROWS: tileRows,
      TILE_KEYS: tileKeys,
      SHARING_STEPS: Math.log2(keyLanes),
      CHUNK_QUADS: chunkQuads,
      CHUNKS: Math.ceil(headDim / QUAD / chunkQuads),
      RUN: run,
      ROW_TILES: rowTiles(),
      COLUMN_TILES: columnTiles(),
      PACKED: packed,
      UNPACKED: 1,
      COLUMN_QUADS: columnQuads,
      STAGES: tileKeys / stageKeys,
      STAGE_QUADS: stageQuads,
      STAGE_BLOCKS: Math.max(1, stageKeys / blockKeys),
      BLOCK_STAGES: Math.max(1, blockKeys / stageKeys),
      BLOCK_ONES: Math.min(2, blocks),
      BLOCK_TWOS: Math.min(2, Math.ceil(blocks / 2)),
      BLOCK_FOURS: Math.ceil(blocks / 4),
      UNROLL: Math.min(tuning.unroll, chunkQuads, stageQuads),
      QK_QUADS: headDim / QUAD,
      HALF_QUADS: headDim / QUAD / 2,
      ROPE_QUADS: headDim / QUAD / 2,
      V_QUADS: headDimV / QUAD,
      VALUE_QUADS: valueQuads,
      VALUE_RUN: Math.min(pieceQuads, valueQuads & -valueQuads),
      PIECE_QUADS: pieceQuads,
      Q_LOADS: loads(tileRows * chunkQuads / halves),
      K_LOADS: loads(tileKeys * chunkQuads / halves / pieceQuads),
      V_LOADS: loads(QUAD * stageQuads * keyLanes * valueQuads / pieceQuads),
      PAGE_SIZE: problem.pageSize,
    },
    pieceElements,
    isRagged: headDim / QUAD % chunkQuads !== 0,
    tileRows,
    tileKeys,
    memory: bytes(),
  };
}

/** The packed rows of the request that has most. */
function mostRows({ requests, numQoHeads, numKvHeads }: AttentionProblem): number {
  let queries = 0;
  for (let at = 1; at < requests.length; at += REQUEST_WORDS) {
    queries = Math.max(queries, requests[at]);
  }
  return queries * numQoHeads / numKvHeads;
}

/** The smallest power of two that is at least `n`. */
function powerOfTwoFrom(n: number): number {
  return 2 ** Math.max(0, Math.ceil(Math.log2(n)));
}

/** The largest power of two that is at most `n`, and at least 1. */
function powerOfTwoUpTo(n: number): number {
  return 2 ** Math.max(0, Math.floor(Math.log2(n)));
}
