/**
 * The GPU part of the bench: limits, then every case of every kernel family, with its share of the
 * limit, and the peers.
 *
 * @module
 */

import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { BenchError, firstLine } from "../bench_error.ts";
import { gpuPeerLines } from "../peers/gpu.ts";
import type { BenchLine, MeasuredLimits } from "../results.ts";
import { casesFor } from "./families.ts";
import { caseName, type GpuCase } from "./family.ts";
import { measureLimits } from "./limits.ts";
import { type Lab, lineOf, measure, type Measurement, withCase } from "./measure.ts";
import { openGpu } from "./open.ts";
import { profileCases, type ProfiledCall } from "./profile.ts";
import { sweepCases, type SweepEntry, type SweepLists } from "./sweep.ts";
import { describeLimits, describeLine } from "./table.ts";
import { GpuTimer, type TimingBudget } from "./timing.ts";
import { readVariants, type Variant } from "./variants.ts";

const FULL: TimingBudget = {
  rounds: 3,
  passes: 12,
  batches: 3,
  passMilliseconds: 10,
  warmMilliseconds: 150,
  heatMilliseconds: 900,
  wallCalls: 5,
};
/** The whole list in two minutes. */
const QUICK: TimingBudget = {
  rounds: 1,
  passes: 8,
  batches: 2,
  passMilliseconds: 5,
  warmMilliseconds: 100,
  heatMilliseconds: 900,
  wallCalls: 3,
};
/** Software adapters have no clock to warm, and take long. */
const SMALL: TimingBudget = {
  rounds: 1,
  passes: 5,
  batches: 1,
  passMilliseconds: 4,
  warmMilliseconds: 20,
  heatMilliseconds: 0,
  wallCalls: 5,
};

/** What the GPU part measured. */
export interface GpuBench {
  readonly backend: WebGpuBackend;
  readonly limits: MeasuredLimits;
  readonly lines: readonly BenchLine[];
  readonly sweep: readonly SweepEntry[];
  readonly profile: readonly ProfiledCall[];
}

/** What the command line asks of the GPU part. */
export interface GpuBenchOptions {
  readonly quick: boolean;
  /** Keeps the cases whose names hold it. */
  readonly filter: string;
  /** Tuning constants to try in all combinations, instead of timing what is there. */
  readonly sweep: SweepLists | null;
  /** A file of variants of the source, to try instead of timing what is there. */
  readonly variants: string | null;
  /** Whether to trace one call of each case, instead of timing it. */
  readonly profile: boolean;
  /** Whether to time other libraries beside us. */
  readonly peers: boolean;
}

/** Runs the GPU part; null, after one line, where there is no GPU. */
export async function benchGpu(
  options: GpuBenchOptions,
  casesOf: (isSmall: boolean) => readonly GpuCase[] = casesFor,
): Promise<GpuBench | null> {
  const variants = options.variants === null ? null : await readVariants(options.variants);
  const backend = await openGpu();
  if (!backend) return null;
  try {
    return await benchOn(backend, options, casesOf, variants);
  } catch (error) {
    backend.destroy();
    throw error;
  }
}

async function benchOn(
  backend: WebGpuBackend,
  options: GpuBenchOptions,
  casesOf: (isSmall: boolean) => readonly GpuCase[],
  variants: readonly Variant[] | null,
): Promise<GpuBench> {
  const { adapter, description } = backend.report();
  console.log(`GPU: ${description}`);
  const isSmall = adapter?.isFallback ?? false;
  const cases = casesOf(isSmall).filter((wanted) => caseName(wanted).includes(options.filter));
  if (cases.length === 0) {
    throw new BenchError(`--filter ${options.filter}: no case of the GPU has it in its name`);
  }
  const budget = isSmall ? SMALL : options.quick ? QUICK : FULL;
  const timer = new GpuTimer(backend.device);
  try {
    const limits = await measureLimits(backend, timer, budget);
    console.log(`  limits: ${describeLimits(limits)}`);
    const lab = { backend, timer, limits, budget };
    const result = { backend, limits, lines: [], sweep: [], profile: [] };
    if (options.profile) return { ...result, profile: await profileCases(lab, cases) };
    if (options.sweep || variants) {
      // A round of each combination ranks them.
      const quick = { ...lab, budget: { ...budget, rounds: 1, wallCalls: 0 } };
      const sweep = await sweepCases(quick, cases, options.sweep ?? {}, variants ?? undefined);
      return { ...result, sweep };
    }
    const lines = await timeCases(lab, cases);
    if (options.peers) {
      lines.push(...await gpuPeerLines(description, cases, lines, options.filter));
    }
    return { ...result, lines };
  } finally {
    timer.destroy();
  }
}

/** All rounds over all cases; a case that fails is left out, with one line. */
async function timeCases(lab: Lab, cases: readonly GpuCase[]): Promise<BenchLine[]> {
  const { rounds } = lab.budget;
  const measured = new Map<GpuCase, Measurement[]>(cases.map((wanted) => [wanted, []]));
  const lines: BenchLine[] = [];
  for (let round = 1; round <= rounds; round++) {
    if (rounds > 1) console.log(`  round ${round} of ${rounds}`);
    for (const [wanted, found] of measured) {
      const name = caseName(wanted).padEnd(48);
      try {
        found.push(
          await withCase(lab, wanted, undefined, (open) => measure(lab, wanted, open)),
        );
      } catch (error) {
        console.log(`  ${name} left out: ${firstLine(error)}`);
        measured.delete(wanted);
        continue;
      }
      if (round < rounds) continue;
      const line = lineOf(wanted, found, lab.limits);
      lines.push(line);
      console.log(`  ${name} ${describeLine(line)}`);
    }
  }
  return lines;
}
