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
/** Stretches from which on a candidate is judged by its mean load. */
const MOST_STRETCHES = 5000;

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
  let longest = 0;
  let total = 0;
  for (let i = 0; i < ranges.length; i++) {
    const length = ranges[i].end - ranges[i].first;
    if (length > longest) longest = length;
    total += length;
  }
  const takers = takersOf(options);
  const costOf = (most: number) => makespanOf(stretchLengths(ranges, most, stepKeys), takers);
  let best = longest;
  // Where each range has a taker of its own, the longest is the last to be done.
  let bestCost = ranges.length <= takers ? longest + WORKGROUP_COST : costOf(longest);
  for (let rounds = 1; rounds <= MOST_ROUNDS; rounds++) {
    // No schedule of so many stretches is better than an even one, and more stretches cost more.
    const count = Math.max(ranges.length, (rounds - 1) * takers);
    if ((total + count * WORKGROUP_COST) / takers + MERGE_COST >= bestCost) break;
    const most = Math.max(minKeys, fillingKeys(ranges, rounds * takers, longest));
    if (most >= longest) continue;
    const cost = costOf(most) + MERGE_COST;
    if (cost < bestCost) [best, bestCost] = [most, cost];
    if (most === minKeys) break;
  }
  return cutKeys(ranges, best, stepKeys);
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
  const lengths = new Float64Array(stretches.length);
  for (let i = 0; i < lengths.length; i++) lengths[i] = stretches[i].end - stretches[i].first;
  return makespanOf(lengths, takersOf(options));
}

function makespanOf(lengths: Float64Array, takers: number): number {
  if (lengths.length === 0) return 0;
  if (lengths.length <= takers) return lengths[0] + WORKGROUP_COST;
  if (lengths.length > MOST_STRETCHES) {
    const sum = lengths.reduce((sum, length) => sum + length + WORKGROUP_COST, 0);
    return sum / takers + (lengths[0] + WORKGROUP_COST) / 2;
  }
  // A heap of the takers by when they are free.
  const free = new Float64Array(takers);
  let last = 0;
  for (const length of lengths) {
    const until = free[0] + length + WORKGROUP_COST;
    last = Math.max(last, until);
    let at = 0;
    for (let child = 1; child < takers; child = 2 * at + 1) {
      if (child + 1 < takers && free[child + 1] < free[child]) child++;
      if (free[child] >= until) break;
      free[at] = free[child];
      at = child;
    }
    free[at] = until;
  }
  return last;
}

/** The lengths of the stretches of {@linkcode cutKeys}, the longest first. */
function stretchLengths(
  ranges: readonly KeyRange[],
  most: number,
  stepKeys: number,
): Float64Array {
  const lengths: number[] = [];
  for (const { first, end } of ranges) {
    const length = stretchKeys(end - first, most, stepKeys);
    let left = end - first;
    for (; left > length; left -= length) lengths.push(length);
    lengths.push(left);
  }
  return new Float64Array(lengths).sort().reverse();
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
  for (let i = 0; i < ranges.length; i++) {
    const range = ranges[i];
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
  return longestFirst(stretches);
}

/** More than there are stretches. */
const MANY = 2 ** 21;

/**
 * The longest first, since what is long must not begin last; equal ones stay in memory's order. Numbers
 * sort several times as fast as objects.
 */
function longestFirst(stretches: readonly KeyRange[]): readonly KeyRange[] {
  const keys = new Float64Array(stretches.length);
  for (let i = 0; i < keys.length; i++) {
    const { first, end } = stretches[i];
    keys[i] = (end - first) * MANY + MANY - 1 - i;
  }
  keys.sort();
  const sorted: KeyRange[] = [];
  for (let i = keys.length - 1; i >= 0; i--) sorted.push(stretches[MANY - 1 - keys[i] % MANY]);
  return sorted;
}
