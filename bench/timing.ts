/**
 * Times of repeated calls.
 *
 * @module
 */

/** The times of one thing, in milliseconds. */
export interface Timing {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Times `work` after warming up: at least `repeats` calls, and more while they take under `budget` ms. */
export async function time(
  work: () => unknown,
  { repeats = 7, budget = 300 }: { repeats?: number; budget?: number } = {},
): Promise<Timing> {
  await work();
  const times: number[] = [];
  let spent = 0;
  while (times.length < repeats || (spent < budget && times.length < 1000)) {
    const begin = performance.now();
    await work();
    times.push(performance.now() - begin);
    spent += times[times.length - 1];
  }
  times.sort((a, b) => a - b);
  return { median: times[times.length >> 1], min: times[0], max: times[times.length - 1] };
}

/**
 * Times several things in turn, over and over, so that a machine whose speed changes while it runs
 * does so to all alike; each `prepare`d thing gets the median of its times.
 */
export async function timeTogether<Name extends string>(
  works: Readonly<Record<Name, () => unknown>>,
  rounds: number,
): Promise<Record<Name, Timing>> {
  const entries = Object.entries(works) as [Name, () => unknown][];
  const times = new Map<Name, number[]>(entries.map(([name]) => [name, []]));
  for (const [, work] of entries) await work();
  for (let round = 0; round < rounds; round++) {
    for (const [name, work] of entries) {
      const begin = performance.now();
      await work();
      times.get(name)!.push(performance.now() - begin);
    }
  }
  const timings = entries.map(([name]) => {
    const sorted = times.get(name)!.sort((a, b) => a - b);
    const median = sorted[sorted.length >> 1];
    return [name, { median, min: sorted[0], max: sorted[sorted.length - 1] }] as const;
  });
  return Object.fromEntries(timings) as Record<Name, Timing>;
}
