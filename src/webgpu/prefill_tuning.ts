/**
 * The tuned constants of the prefill kernel. They come from sweeps on an H200 (bench/notes/prefill.md); another
 * GPU may want others.
 *
 * @module
 */

/** What may be tuned, all whole numbers: the bench's sweep tries combinations. */
export interface PrefillTuning {
  /** Lanes along a tile's rows, and along its keys (and along the dims of v). Powers of two. */
  readonly rowLanes: number;
  readonly keyLanes: number;
  /** Rows and keys of a lane: its part of q·k. Powers of two; keys from 4 up. */
  readonly laneRows: number;
  readonly laneKeys: number;
  /** Keys side by side of a lane: 1, 2 or 4. */
  readonly run: number;
  /** Quads of every row of q and k that are staged at once, at most; a power of two. */
  readonly chunkQuads: number;
  /** Quads of rows of v that are staged at once, at most; a power of two. */
  readonly stageQuads: number;
  /** Quads that are multiplied without a loop, at most: a power of two. */
  readonly unroll: number;
  /** Workgroups that keep the device busy; keys are split among so many. */
  readonly workgroups: number;
}

/** The names of {@linkcode PrefillTuning}, for the bench. */
export const PREFILL_TUNING_NAMES: readonly (keyof PrefillTuning)[] = [
  "rowLanes",
  "keyLanes",
  "laneRows",
  "laneKeys",
  "run",
  "chunkQuads",
  "stageQuads",
  "unroll",
  "workgroups",
];

/** Numbers of the output that a lane sums up at most: with those of q·k they are in registers. */
export const MAX_LANE_OUTPUT = 64;

/** What constants are chosen by. */
export interface PrefillNeeds {
  /** Bytes of workgroup memory. */
  readonly memory: number;
  /** Packed rows of the longest request. */
  readonly rows: number;
  readonly headDimV: number;
}

/** Workgroup memory from which on tiles are large: less suits GPUs with little, and software adapters. */
const LARGE_MEMORY = 40_960;

/** The constants for a problem. */
export function prefillTuning(needs: PrefillNeeds): PrefillTuning {
  return needs.memory >= LARGE_MEMORY ? largeTiles(needs) : smallTiles(needs);
}

/**
 * A processor of an H200 holds 256 lanes of these tiles, since each lane has many registers. Through
 * Vulkan its workgroups share about 50 KB of workgroup memory: one that takes more than 24 KB runs alone.
 */
const LANES = 132 * 256;

function largeTiles({ rows, headDimV }: PrefillNeeds): PrefillTuning {
  const tiles = (rowLanes: number, keyLanes: number, laneRows: number): PrefillTuning => ({
    rowLanes,
    keyLanes,
    laneRows,
    laneKeys: 8,
    run: 1,
    chunkQuads: 4,
    stageQuads: 4,
    unroll: 4,
    workgroups: LANES / (rowLanes * keyLanes),
  });
  if (headDimV > 256) return tiles(8, 32, 4);
  if (rows <= 16) return tiles(4, 16, 4);
  // Few registers: three of these fit a processor.
  if (rows <= 32) return { ...tiles(8, 16, 4), workgroups: 132 * 3 };
  if (rows <= 64) return tiles(8, 16, 8);
  // Rows of v that are long leave a lane fewer of a tile's.
  return headDimV > 128 ? tiles(8, 32, 8) : tiles(16, 16, 8);
}

function smallTiles({ rows, headDimV }: PrefillNeeds): PrefillTuning {
  return {
    rowLanes: rows <= 8 ? 2 : rows <= 16 || headDimV > 256 ? 4 : 8,
    keyLanes: headDimV > 128 ? 16 : 8,
    laneRows: 4,
    laneKeys: 4,
    run: 2,
    chunkQuads: 4,
    stageQuads: 4,
    unroll: 1,
    workgroups: 264,
  };
}
