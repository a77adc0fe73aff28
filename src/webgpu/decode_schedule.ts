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
 * device: 8 and 6 microseconds on an H200, where a key takes 0.06.
 */
const WORKGROUP_COST = 128;
const MERGE_COST = 100;
/** Stretches, times workgroups that take them, from which on a candidate is judged by its mean load. */
const MOST_STEPS = 50_000;

/** Rounds of the device that are tried: each workgroup takes so many stretches, about. */
const MOST_ROUNDS = 6;

/**
 * Cuts ranges into stretches, the longest first.
 *
 * The candidates are no cut at all, and the smallest stretch with which the device is filled once,
 * twice, ... (FlashInfer searches for the first). Each is judged by the time that it would take where
 * each workgroup that gets free takes the longest stretch that is left, as GPUs do. No split comes
 * without the gain that pays for the merge.
 */
export function scheduleKeys(
  ranges: readonly KeyRange[],
  options: ScheduleOptions,
): readonly KeyRange[] {
  const { minKeys, stepKeys } = options;
  const longest = ranges.reduce((most, { first, end }) => Math.max(most, end - first), 0);
  let best = cutKeys(ranges, longest, stepKeys);
  let bestCost = makespan(best, options);
  for (let rounds = 1; rounds <= MOST_ROUNDS; rounds++) {
    const most = Math.max(minKeys, fillingKeys(ranges, rounds * takersOf(options), longest));
    if (most >= longest) continue;
    const stretches = cutKeys(ranges, most, stepKeys);
    const cost = makespan(stretches, options) + MERGE_COST;
    if (cost < bestCost) [best, bestCost] = [stretches, cost];
    if (most === minKeys) break;
  }
  return best;
}

/** Stretches that are computed at once: all KV heads of a stretch take the same time. */
function takersOf({ workgroups, workgroupsPerStretch }: ScheduleOptions): number {
  return Math.max(1, Math.floor(workgroups / workgroupsPerStretch));
}

/** The smallest length of a stretch that makes at most `count` of the ranges, if there is one. */
function fillingKeys(ranges: readonly KeyRange[], count: number, longest: number): number {
  let low = 1;
  let high = longest;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    let stretches = 0;
    for (const { first, end } of ranges) {
      stretches += Math.max(1, Math.ceil((end - first) / middle));
    }
    if (stretches <= count) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** When the last of the stretches, which come longest first, is done, in keys. */
export function makespan(stretches: readonly KeyRange[], options: ScheduleOptions): number {
  const costs = stretches.map(({ first, end }) => end - first + WORKGROUP_COST);
  const takers = takersOf(options);
  if (stretches.length <= takers) return costs[0] ?? 0;
  if (stretches.length * takers > MOST_STEPS) {
    return costs.reduce((sum, cost) => sum + cost, 0) / takers + costs[0] / 2;
  }
  const busyUntil = new Float64Array(takers);
  for (const cost of costs) {
    let free = 0;
    for (let i = 1; i < takers; i++) if (busyUntil[i] < busyUntil[free]) free = i;
    busyUntil[free] += cost;
  }
  return Math.max(...busyUntil);
}

/** The keys of each of the equal stretches that a range is cut into, none longer than `most`. */
function stretchKeys(keys: number, most: number, stepKeys: number): number {
  if (keys <= most) return keys;
  const even = keys / Math.ceil(keys / most);
  return Math.ceil(even / stepKeys) * stepKeys;
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
