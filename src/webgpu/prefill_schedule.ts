/**
 * What each workgroup of prefill does: a tile of packed rows of one request, with all keys that they
 * see, or, where too few tiles would leave a GPU idle, with a chunk of them. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { makespan } from "./decode_schedule.ts";

/** A tile of rows with a stretch of keys. */
export interface TileWork {
  readonly request: number;
  /** Packed rows: row p is head p % group of query p / group. */
  readonly firstRow: number;
  readonly first: number;
  readonly end: number;
  /** Which chunk of its request's keys this is. */
  readonly chunk: number;
}

/** What scheduling knows of the kernel and the device. */
export interface PrefillScheduleOptions {
  readonly tileRows: number;
  readonly tileKeys: number;
  /** Workgroups that keep the device busy. */
  readonly workgroups: number;
}

/** A schedule: the longest works first. */
export interface PrefillSchedule {
  readonly works: readonly TileWork[];
  /** Keys of a chunk: chunk i of a request has the keys from i · chunkKeys on. Infinity: no splits. */
  readonly chunkKeys: number;
}

type Visibility = Pick<AttentionProblem, "causal" | "windowLeft" | "requests">;

/** Stretches of keys begin at whole words of a mask. */
export const KEY_ALIGNMENT = 32;
const MOST_ROUNDS = 6;
/** What the merge of chunks costs, in keys of a full device. */
const MERGE_COST = 100;
/** Tiles from which on splitting is not thought of: the device has enough to do. */
const MANY_ROUNDS = 8;

/** The keys that queries `from` to `to` (inclusive) of a request see, at least one of them each. */
export function visibleKeys(
  { causal, windowLeft, requests }: Visibility,
  request: number,
  from: number,
  to: number,
): readonly [first: number, end: number] {
  const [qoLen, kvLen] = requests.subarray(request * REQUEST_WORDS + 1);
  const position = (query: number) => kvLen - qoLen + query;
  const end = causal ? Math.min(kvLen, position(to) + 1) : kvLen;
  const first = windowLeft === null ? 0 : Math.max(0, position(from) - windowLeft);
  return first < end ? [first, end] : [0, 0];
}

/** Schedules a problem. */
export function schedulePrefill(
  problem: Visibility & Pick<AttentionProblem, "numRequests" | "numQoHeads" | "numKvHeads">,
  { tileRows, tileKeys, workgroups }: PrefillScheduleOptions,
): PrefillSchedule {
  const { numRequests, numQoHeads, numKvHeads, requests } = problem;
  const group = numQoHeads / numKvHeads;
  const tiles: TileWork[] = [];
  for (let request = 0; request < numRequests; request++) {
    const rows = requests[request * REQUEST_WORDS + 1] * group;
    for (let firstRow = 0; firstRow < rows; firstRow += tileRows) {
      const lastRow = Math.min(rows, firstRow + tileRows) - 1;
      const queries = [firstRow, lastRow].map((row) => Math.floor(row / group));
      const [first, end] = visibleKeys(problem, request, queries[0], queries[1]);
      tiles.push({ request, firstRow, first: alignDown(first), end, chunk: 0 });
    }
  }
  const options = { workgroups, workgroupsPerStretch: numKvHeads, minKeys: 0, stepKeys: tileKeys };
  const takers = Math.max(1, Math.floor(workgroups / numKvHeads));
  let best: PrefillSchedule = { works: longestFirst(tiles), chunkKeys: Infinity };
  if (tiles.length >= MANY_ROUNDS * takers) return best;
  let bestCost = makespan(best.works, options);
  const longest = tiles.reduce((most, { first, end }) => Math.max(most, end - first), 0);
  const total = tiles.reduce((sum, { first, end }) => sum + end - first, 0);
  for (let rounds = 1; rounds <= MOST_ROUNDS; rounds++) {
    const least = Math.max(2 * tileKeys, total / (rounds * takers));
    const chunkKeys = Math.ceil(least / tileKeys) * tileKeys;
    if (chunkKeys >= longest) continue;
    const works = longestFirst(tiles.flatMap((tile) => cut(tile, chunkKeys)));
    const cost = makespan(works, options) + MERGE_COST;
    if (cost < bestCost) [best, bestCost] = [{ works, chunkKeys }, cost];
  }
  return best;
}

/** The parts of a tile in each chunk of keys. */
function cut(tile: TileWork, chunkKeys: number): TileWork[] {
  if (tile.first === tile.end) return [tile];
  const parts: TileWork[] = [];
  for (let chunk = Math.floor(tile.first / chunkKeys); chunk * chunkKeys < tile.end; chunk++) {
    const first = Math.max(tile.first, chunk * chunkKeys);
    parts.push({ ...tile, first, end: Math.min(tile.end, (chunk + 1) * chunkKeys), chunk });
  }
  return parts;
}

function alignDown(key: number): number {
  return key - key % KEY_ALIGNMENT;
}

function longestFirst(works: readonly TileWork[]): TileWork[] {
  return works.toSorted((a, b) => (b.end - b.first) - (a.end - a.first));
}
