/**
 * The sweep for kernel authors: every combination of tuning constants, with every variant of the
 * source, over the cases, checked, timed and ranked. It is how the constants in
 * src/webgpu/decode_tuning.ts come to be.
 *
 * @module
 */

import { BenchError, firstLine } from "../bench_error.ts";
import type { BenchLine, BenchShape } from "../results.ts";
import { DECODE_TUNING_NAMES } from "../../src/webgpu/decode_tuning.ts";
import { PREFILL_TUNING_NAMES } from "../../src/webgpu/prefill_tuning.ts";
import { caseName, type GpuCase, type OpenCase, type Tuning } from "./family.ts";
import { type Lab, lineOf, measure, withCase } from "./measure.ts";
import { AS_IT_IS, type Variant, withVariant } from "./variants.ts";

/** Lists of values by the names of tuning constants. */
export type SweepLists = Readonly<Record<string, readonly number[]>>;

/** One combination on one case; `failure` says why it has no time. */
export interface SweepEntry {
  readonly variant: string;
  readonly tuning: Tuning;
  readonly case: { readonly family: string; readonly shape: BenchShape; readonly dtype: string };
  readonly line?: BenchLine;
  readonly failure?: string;
}

/** The constants that a sweep may try: those of the families in its filter. */
const TUNING_NAMES: readonly string[] = [
  ...new Set<string>([...DECODE_TUNING_NAMES, ...PREFILL_TUNING_NAMES]),
];

/** What of a ranking is printed. */
const PRINTED = 8;

/** Reads `rows=2,4,8` and the like. Throws a plain message for what it does not understand. */
export function parseSweep(
  texts: readonly string[],
  names: readonly string[] = TUNING_NAMES,
): SweepLists {
  const lists: Record<string, number[]> = {};
  for (const text of texts) {
    const [name, values = ""] = text.split("=");
    if (!names.includes(name)) {
      throw new BenchError(`--sweep ${text}: ${name} is none of ${names.join(", ")}`);
    }
    const isWhole = /^\d+(,\d+)*$/.test(values);
    if (!isWhole) {
      throw new BenchError(`--sweep ${text}: expected whole numbers, such as ${name}=2,4,8`);
    }
    lists[name] = values.split(",").map(Number);
  }
  return lists;
}

/** All combinations of the lists. */
export function combinations(lists: SweepLists): Tuning[] {
  let all: Tuning[] = [{}];
  for (const [name, values] of Object.entries(lists)) {
    all = all.flatMap((tuning) => values.map((value) => ({ ...tuning, [name]: value })));
  }
  return all;
}

/** Runs every combination of every variant on every case and prints each case's ranking. */
export async function sweepCases(
  lab: Lab,
  cases: readonly GpuCase[],
  lists: SweepLists,
  variants: readonly Variant[] = [AS_IT_IS],
): Promise<SweepEntry[]> {
  const entries: SweepEntry[] = [];
  for (const wanted of cases) {
    const ofCase: SweepEntry[] = [];
    for (const variant of variants) ofCase.push(...await sweepVariant(lab, wanted, lists, variant));
    ofCase.sort((a, b) => (a.line?.time.median ?? Infinity) - (b.line?.time.median ?? Infinity));
    console.log(`  ${caseName(wanted)}`);
    for (const { variant, tuning, line, failure } of ofCase.slice(0, PRINTED)) {
      const result = line
        ? `${line.time.median.toFixed(1).padStart(9)} us  ${line.kernel}`
        : failure;
      console.log(`    ${`${variant} ${JSON.stringify(tuning)}`.padEnd(60)} ${result}`);
    }
    entries.push(...ofCase);
  }
  return entries;
}

function sweepVariant(
  lab: Lab,
  wanted: GpuCase,
  lists: SweepLists,
  variant: Variant,
): Promise<SweepEntry[]> {
  const { family, shape, dtype } = wanted;
  return withVariant(lab.backend, variant, async (backend) => {
    const entries: SweepEntry[] = [];
    const seen = new Set<string>();
    for (const combination of combinations(lists)) {
      const tuning = { ...variant.tuning, ...combination };
      const entry = { variant: variant.name, tuning, case: { family, shape, dtype } };
      try {
        await withCase({ ...lab, backend }, wanted, tuning, async (open) => {
          // Different bounds may lead to the same dispatches.
          const work = workOf(open);
          if (seen.has(work)) return;
          seen.add(work);
          const line = lineOf(wanted, [await measure(lab, wanted, open)], lab.limits);
          entries.push({ ...entry, line });
        });
      } catch (error) {
        entries.push({ ...entry, failure: firstLine(error) });
      }
    }
    return entries;
  });
}

function workOf({ calls: [call] }: OpenCase): string {
  return JSON.stringify(
    call.map(({ kernel, grid, resources }) => [
      kernel.name,
      grid,
      resources.map(({ buffer }) => buffer.size),
    ]),
  );
}
