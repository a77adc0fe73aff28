/**
 * The sweep for kernel authors: every combination of tuning constants over the decode cases, checked,
 * timed and ranked. It is how the constants in src/webgpu/decode_plan.ts come to be.
 *
 * @module
 */

import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { DecodeTuning } from "../../src/webgpu/decode_plan.ts";
import type { BenchLine, MeasuredLimits } from "../results.ts";
import { benchDecode, type DecodeCase } from "./decode.ts";
import type { GpuTimer, TimingBudget } from "./timing.ts";

/** Lists of values by the names of {@linkcode DecodeTuning}. */
export type SweepLists = Readonly<Partial<Record<keyof DecodeTuning, readonly number[]>>>;

/** One combination on one case; `failure` says why it has no time. */
export interface SweepEntry {
  readonly tuning: Partial<DecodeTuning>;
  readonly case: DecodeCase;
  readonly line?: BenchLine;
  readonly failure?: string;
}

const NAMES: readonly (keyof DecodeTuning)[] = [
  "maxHeads",
  "maxTeam",
  "workgroup",
  "maxRows",
  "maxLaneElements",
];

/** Reads `maxRows=2,4,8` and the like. Throws a plain message for what it does not understand. */
export function parseSweep(texts: readonly string[]): SweepLists {
  const lists: Partial<Record<keyof DecodeTuning, number[]>> = {};
  for (const text of texts) {
    const [name, values = ""] = text.split("=");
    const known = NAMES.find((known) => known === name);
    if (!known) throw new Error(`--sweep ${text}: ${name} is none of ${NAMES.join(", ")}`);
    const numbers = values.split(",").map(Number);
    if (!numbers.every((n) => Number.isInteger(n) && n > 0)) {
      throw new Error(`--sweep ${text}: expected whole numbers, such as ${name}=2,4,8`);
    }
    lists[known] = numbers;
  }
  return lists;
}

/** All combinations of the lists. */
export function combinations(lists: SweepLists): Partial<DecodeTuning>[] {
  let all: Partial<DecodeTuning>[] = [{}];
  for (const [name, values] of Object.entries(lists)) {
    all = all.flatMap((tuning) => values.map((value) => ({ ...tuning, [name]: value })));
  }
  return all;
}

/** Runs every combination on every case and prints each case's ranking. */
export async function sweepDecode(
  backend: WebGpuBackend,
  timer: GpuTimer,
  cases: readonly DecodeCase[],
  lists: SweepLists,
  limits: MeasuredLimits,
  budget: TimingBudget,
  nameOf: (wanted: DecodeCase) => string,
): Promise<SweepEntry[]> {
  const entries: SweepEntry[] = [];
  for (const wanted of cases) {
    const ofCase: SweepEntry[] = [];
    const seen = new Set<string>();
    for (const tuning of combinations(lists)) {
      try {
        const line = await benchDecode(backend, timer, wanted, limits, budget, tuning);
        // Different bounds may lead to one kernel.
        if (seen.has(line.kernel)) continue;
        seen.add(line.kernel);
        ofCase.push({ tuning, case: wanted, line });
      } catch (error) {
        ofCase.push({ tuning, case: wanted, failure: (error as Error).message.split("\n")[0] });
      }
    }
    ofCase.sort((a, b) => (a.line?.time.median ?? Infinity) - (b.line?.time.median ?? Infinity));
    console.log(`  ${nameOf(wanted)}`);
    for (const { tuning, line, failure } of ofCase.slice(0, 8)) {
      const result = line
        ? `${line.time.median.toFixed(1).padStart(9)} us  ${line.kernel}`
        : failure;
      console.log(`    ${JSON.stringify(tuning).padEnd(60)} ${result}`);
    }
    entries.push(...ofCase);
  }
  return entries;
}
