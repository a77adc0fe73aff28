/**
 * Which stretches of keys decode's workgroups take, and which row each writes. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { type KeyRange, scheduleKeys } from "./decode_schedule.ts";
import type { DecodeShape } from "./decode_shape.ts";
import type { Region } from "./decode_windows.ts";

/** Where the tokens of a region end that has all tokens of its pages. */
export const ALL_TOKENS: number = 2 ** 32 - 1;

/** A stretch of keys, with the row that its result goes to. */
export interface Stretch extends KeyRange {
  readonly outRow: number;
}

/** The stretches of all requests. */
export interface Stretches {
  /** Of each region, in the order of the regions; regions of the same keys share theirs. */
  readonly ofRegions: readonly (readonly Stretch[])[];
  /** Of each request. */
  readonly counts: Uint32Array<ArrayBuffer>;
  /** Whether a request has more than one, so that rows are those of states. */
  readonly isSplit: boolean;
}

/** Schedules all requests at once, cuts the schedule by regions, and gives each stretch its row. */
export function planStretches(
  problem: AttentionProblem,
  shape: DecodeShape,
  regions: readonly Region[],
): Stretches {
  const { numRequests, requests } = problem;
  const schedule = scheduleRequests(problem, shape);
  // Regions that differ in heads only share their stretches: a state has all heads.
  const owners = regions.map((region) => regions.findIndex((other) => haveSameKeys(region, other)));
  const lists = regions.map((region, i) =>
    owners[i] === i ? stretchesOf(region, schedule, problem) : []
  );
  const counts = new Uint32Array(numRequests);
  let isSplit = false;
  for (const list of lists) {
    for (let i = 0; i < list.length; i++) if (++counts[list[i].request] > 1) isSplit = true;
  }
  // Without splits, results go straight to their rows of out; else a request's states follow each
  // other, in the order of requests.
  const next = new Uint32Array(numRequests);
  for (let request = 0, first = 0; request < numRequests; request++) {
    next[request] = isSplit ? first : requests[request * REQUEST_WORDS];
    first += counts[request];
  }
  const withRows = lists.map((list) => {
    const stretches: Stretch[] = [];
    for (let i = 0; i < list.length; i++) {
      const { request, first, end } = list[i];
      stretches.push({ request, first, end, outRow: next[request]++ });
    }
    return stretches;
  });
  return { ofRegions: owners.map((owner) => withRows[owner]), counts, isSplit };
}

function haveSameKeys(a: Region, b: Region): boolean {
  return a.pages[0] === b.pages[0] && a.pages[1] === b.pages[1] &&
    a.tokens[0] === b.tokens[0] && a.tokens[1] === b.tokens[1];
}

/** The keys that the query of each request sees, all or those of its window, cut and in order. */
function scheduleRequests(
  { numRequests, numKvHeads, requests, windowLeft }: AttentionProblem,
  { headBlocks, tuning, stepKeys }: DecodeShape,
): readonly KeyRange[] {
  const ranges: KeyRange[] = [];
  for (let request = 0; request < numRequests; request++) {
    const end = requests[request * REQUEST_WORDS + 2];
    const first = windowLeft === null ? 0 : Math.max(0, end - 1 - windowLeft);
    ranges.push({ request, first, end });
  }
  const { workgroups, minKeys } = tuning;
  const workgroupsPerStretch = numKvHeads * headBlocks;
  return scheduleKeys(ranges, { workgroupsPerStretch, workgroups, minKeys, stepKeys });
}

/** What of a schedule lies in a region. */
function stretchesOf(
  { pages, tokens }: Region,
  schedule: readonly KeyRange[],
  { requests, pageTable }: AttentionProblem,
): readonly KeyRange[] {
  if (tokens[1] === ALL_TOKENS) return schedule;
  return schedule.flatMap((stretch): KeyRange[] => {
    const page = requests[stretch.request * REQUEST_WORDS + 3];
    if (pageTable === null && (page < pages[0] || page >= pages[1])) return [];
    const first = Math.max(stretch.first, tokens[0]);
    const end = Math.min(stretch.end, tokens[1]);
    if (first < end) return [{ ...stretch, first, end }];
    // A request without keys still has a result, which the first region writes.
    return stretch.first === stretch.end && tokens[0] === 0 ? [stretch] : [];
  });
}
