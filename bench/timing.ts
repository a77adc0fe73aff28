/**
 * Wall time of repeated calls.
 *
 * @module
 */

import { type Samples, samples } from "./results.ts";

/**
 * Times several things in turn, over and over, so that a machine whose speed changes while it runs
 * does so to all alike; each has run once before.
 */
export async function timeTogether<Name extends string>(
  works: Readonly<Record<Name, () => unknown>>,
  rounds: number,
): Promise<Record<Name, Samples>> {
  const entries = Object.entries(works) as [Name, () => unknown][];
  const times = new Map<Name, number[]>(entries.map(([name]) => [name, []]));
  for (const [, work] of entries) await work();
  for (let round = 0; round < rounds; round++) {
    for (const [name, work] of entries) {
      const begin = performance.now();
      await work();
      times.get(name)!.push(1000 * (performance.now() - begin));
    }
  }
  return Object.fromEntries(
    entries.map(([name]) => [name, samples(times.get(name)!)]),
  ) as Record<Name, Samples>;
}
