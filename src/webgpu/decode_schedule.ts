/**
 * Split-KV: which stretch of which request's keys each workgroup takes, so that a GPU is busy with few
 * long requests too, and with requests of mixed lengths. Pure.
 *
 * @module
 */

/** Keys of one request, as positions from `first` up to `end`. */
export interface KeyRange {
  readonly request: number;
  readonly first: number;
  readonly end: number;
}

/** What scheduling knows of the kernel and the device. */
export interface ScheduleOptions {
  /** Workgroups of one stretch: KV heads times blocks of query heads. */
  readonly workgroupsPerStretch: number;
  /** Workgroups that keep the device busy. */
  readonly workgroups: number;
  /** Keys of a stretch at least, if a request is split. */
  readonly minKeys: number;
  /** Keys of one step of a workgroup: stretches are whole steps, but for a request's last. */
  readonly stepKeys: number;
}

/**
 * What a workgroup costs beside its keys, and a merge of split requests, both in keys of a full
 * device: 4 and 6 microseconds on an H200, where a key takes 0.06.
 */
const WORKGROUP_COST = 64;
const MERGE_COST = 100;

/**
 * Cuts ranges into stretches, the longest first.
 *
 * Every candidate (the longest range in 1, 2, 3, 4, 6, 8, ... parts, the others in parts no longer) is
 * judged by the time that it would take: the largest stretch while all workgroups run at once, else
 * the mean load and half the largest. No split comes without the gain that pays for the merge.
 */
export function scheduleKeys(
  ranges: readonly KeyRange[],
  options: ScheduleOptions,
): readonly KeyRange[] {
  const longest = ranges.reduce((most, { first, end }) => Math.max(most, end - first), 0);
  let best = longest;
  let bestCost = Infinity;
  for (const parts of partCounts(Math.floor(longest / options.minKeys))) {
    const most = stretchKeys(longest, Math.ceil(longest / parts), options.stepKeys);
    const cost = costOf(ranges, most, options) + (parts > 1 ? MERGE_COST : 0);
    if (cost < bestCost) [best, bestCost] = [most, cost];
  }
  return cutKeys(ranges, best, options.stepKeys);
}

/** 1, 2, 3, 4, 6, 8, 12, ... and the largest. */
function* partCounts(most: number): Generator<number> {
  yield 1;
  for (let power = 2; power < most; power *= 2) {
    yield power;
    if (power * 1.5 < most) yield power * 1.5;
  }
  if (most > 1) yield most;
}

/** The keys of each of the equal stretches that a range is cut into, none longer than `most`. */
function stretchKeys(keys: number, most: number, stepKeys: number): number {
  if (keys <= most) return keys;
  const even = keys / Math.ceil(keys / most);
  return Math.ceil(even / stepKeys) * stepKeys;
}

function costOf(ranges: readonly KeyRange[], most: number, options: ScheduleOptions): number {
  let stretches = 0;
  let keys = 0;
  let largest = 0;
  for (const { first, end } of ranges) {
    const length = stretchKeys(end - first, most, options.stepKeys);
    stretches += Math.max(1, Math.ceil((end - first) / Math.max(1, length)));
    keys += end - first;
    largest = Math.max(largest, length);
  }
  const count = stretches * options.workgroupsPerStretch;
  if (count <= options.workgroups) return largest + WORKGROUP_COST;
  const load = (keys * options.workgroupsPerStretch + WORKGROUP_COST * count) / options.workgroups;
  return load + largest / 2;
}

/** Cuts ranges into equal stretches of whole steps, none longer than `most`; the longest first. */
export function cutKeys(
  ranges: readonly KeyRange[],
  most: number,
  stepKeys: number,
): readonly KeyRange[] {
  const stretches: KeyRange[] = [];
  for (const range of ranges) {
    const { request, first, end } = range;
    const length = stretchKeys(end - first, most, stepKeys);
    if (length === end - first) {
      stretches.push(range);
      continue;
    }
    for (let from = first; from < end; from += length) {
      stretches.push({ request, first: from, end: Math.min(end, from + length) });
    }
  }
  // What is long must not begin last. Sorting is stable: equal stretches stay in memory's order.
  return stretches.sort((a, b) => (b.end - b.first) - (a.end - a.first));
}
