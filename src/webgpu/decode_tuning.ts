/**
 * The tuned constants of the decode kernel. They come from sweeps on an H200 (`deno task bench gpu
 * --sweep`, bench/notes/decode.md); another GPU may want others.
 *
 * @module
 */

/** What may be tuned, all whole numbers: the bench's sweep tries combinations. */
export interface DecodeTuning {
  /**
   * Query heads that a team serves at most; more teams share its rows to serve the rest. Up to the
   * next power of two of the block's, places may be empty: sums over lanes halve evenly then.
   */
  readonly heads: number;
  /** Elements of a cache row that a lane holds; a team has as many lanes as that takes. */
  readonly laneElements: number;
  /** Rows that a team has in flight, a power of two. */
  readonly rows: number;
  /** Lanes of a workgroup. */
  readonly workgroup: number;
  /** 1: the next rows are loaded before these are used; 0: as soon as they are, in their registers. */
  readonly early: number;
  /** 1: weights go to a team's lanes through workgroup memory. */
  readonly memory: number;
  /** 1: rows of k and v share what they can of their addresses (pages always do). */
  readonly shared: number;
  /** Workgroups that keep the device busy; keys are split among so many. */
  readonly workgroups: number;
  /** Keys of a stretch at least, where keys are split. */
  readonly minKeys: number;
}

/** The names of {@linkcode DecodeTuning}, for the bench. */
export const DECODE_TUNING_NAMES: readonly (keyof DecodeTuning)[] = [
  "heads",
  "laneElements",
  "rows",
  "workgroup",
  "early",
  "memory",
  "shared",
  "workgroups",
  "minKeys",
];

/** Query heads of one KV head that a workgroup serves at most. */
export const MAX_BLOCK_HEADS = 8;
/**
 * Heads times elements of a lane at most: so many queries and so many sums are held in registers, of
 * which GPUs have about 255 a lane. More also compiles slowly on software adapters.
 */
export const MAX_LANE_VALUES = 64;

/**
 * heads, laneElements, rows, workgroup, early, memory (0), shared (1); by the query heads of a block,
 * from 1.
 */
type Row = readonly [number, number, number, number, number, number?, number?];
const SUBGROUPS_16_BIT: readonly Row[] = [
  [1, 8, 4, 128, 1],
  [2, 8, 4, 128, 1],
  [3, 16, 4, 64, 1],
  [4, 16, 4, 64, 1],
  [5, 8, 8, 64, 1],
  [6, 8, 8, 64, 1, 1],
  [7, 8, 4, 64, 1, 1],
  [8, 8, 4, 64, 1],
];
const SUBGROUPS_8_BIT: readonly Row[] = [
  [1, 16, 4, 128, 0],
  [2, 16, 8, 64, 1],
  [3, 16, 8, 64, 1],
  [4, 16, 4, 64, 1],
  [5, 8, 8, 64, 1],
  [6, 8, 8, 64, 1, 1],
  [7, 8, 8, 64, 1],
  [8, 8, 8, 64, 1, 1],
];
/** Where elements cost more to decode, since NaN codes are looked for. */
const SUBGROUPS_MARKED: readonly Row[] = [
  [1, 16, 4, 128, 0],
  [2, 16, 8, 64, 1],
  [3, 16, 8, 64, 1],
  [4, 16, 4, 64, 1, 1],
  [5, 8, 8, 64, 1],
  [6, 8, 8, 64, 1, 1],
  [7, 8, 8, 64, 0],
  [8, 8, 8, 64, 0, 1, 0],
];
/** Where each workgroup gets few keys, what counts is how soon they are through: thinner lanes. */
const SHORT_16_BIT: Readonly<Record<number, Row>> = { 4: [4, 8, 4, 64, 1] };
const SHORT_KEYS = 512;
/** Teams that meet in workgroup memory share it: fewer lanes, and no halving of values. */
const PORTABLE: readonly Row[] = [
  [1, 8, 4, 64, 1],
  [2, 16, 4, 64, 0],
  [3, 16, 4, 64, 0],
  ...new Array<Row>(5).fill([4, 16, 4, 64, 0]),
];

/** Workgroups that keep an H200 busy: 4 for each of its 132 processors. */
const WORKGROUPS = 528;

/** What constants are chosen by. */
export interface TuningNeeds {
  readonly rung: "subgroups" | "workgroup";
  /** Bytes of a cache element. */
  readonly elementBytes: number;
  /** Whether its NaN codes must be looked for. */
  readonly nanMarks: boolean;
  /** Query heads of a block. */
  readonly blockHeads: number;
  /** Keys of all requests, times KV heads and blocks of query heads. */
  readonly totalKeys: number;
}

/** The constants for a problem. */
export function decodeTuning(
  { rung, elementBytes, nanMarks, blockHeads, totalKeys }: TuningNeeds,
): DecodeTuning {
  const bytes = nanMarks ? SUBGROUPS_MARKED : SUBGROUPS_8_BIT;
  const narrow = elementBytes === 1 ? bytes : SUBGROUPS_16_BIT;
  const table = rung === "workgroup" ? PORTABLE : narrow;
  const isShort = table === SUBGROUPS_16_BIT && totalKeys < SHORT_KEYS * WORKGROUPS;
  const row = isShort ? SHORT_16_BIT[blockHeads] : undefined;
  const [heads, laneElements, rows, workgroup, early, memory = 0, shared = 1] = row ??
    table[blockHeads - 1];
  return {
    heads,
    laneElements,
    rows,
    workgroup,
    early,
    memory,
    shared,
    workgroups: WORKGROUPS,
    minKeys: 64,
  };
}
