/**
 * Checks and times one case: the same for every kernel family.
 *
 * @module
 */

import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { BenchLine, MeasuredLimits } from "../results.ts";
import { samples } from "../results.ts";
import type { GpuCase, OpenCase, Tuning } from "./family.ts";
import type { GpuTimer, TimingBudget } from "./timing.ts";

/** What works on one device share. */
export interface Lab {
  readonly backend: WebGpuBackend;
  readonly timer: GpuTimer;
  readonly limits: MeasuredLimits;
  readonly budget: TimingBudget;
}

/** What one round found out about a case. */
export interface Measurement {
  readonly kernel: string;
  /** Microseconds of one call. */
  readonly times: readonly number[];
  readonly walls: readonly number[];
  readonly error: number;
  /** Bytes that calls read before they read the same again. */
  readonly workingSet: number;
}

/** No cache holds so much: what calls read in turn comes from memory. */
const LARGER_THAN_CACHE = 2 ** 27;

/** Opens a case for `work` and closes it whatever comes. */
export async function withCase<T>(
  { backend }: Lab,
  wanted: GpuCase,
  tuning: Tuning | undefined,
  work: (open: OpenCase) => Promise<T>,
): Promise<T> {
  const open = await wanted.open(backend, tuning);
  try {
    return await work(open);
  } finally {
    open.release();
  }
}

/**
 * Calls after which a loop goes as it will: the first compiles, or finds what the library caches, and
 * after some reads in a row the library reads faster (src/webgpu/readback.ts).
 */
const LOOP_CALLS = 24;
/**
 * After the first of them, they go on no longer than this: calls that take so long have results beyond
 * what the library reads faster, such as those of prefill.
 */
const LOOP_MILLISECONDS = 400;

/** One round of a case. A kernel that is wrong gets no time. */
export async function measure(
  { timer, budget }: Lab,
  wanted: GpuCase,
  open: OpenCase,
): Promise<Measurement> {
  // Every copy's call runs once; the check looks at what the last left.
  await timer.once(open.calls);
  const error = await open.check();
  const times = await timer.time(open.calls, budget);
  const walls = open.callAndRead ? await wallTimes(open.callAndRead, budget.wallCalls) : [];
  const workingSet = wanted.bytes * open.calls.length;
  return { kernel: open.kernel, times, walls, error, workingSet };
}

/** Microseconds of each of `count` calls in a loop, until their results are read. */
export async function wallTimes(call: () => Promise<void>, count: number): Promise<number[]> {
  if (count === 0) return [];
  await call();
  const begun = performance.now();
  for (let i = 1; i < LOOP_CALLS && performance.now() - begun < LOOP_MILLISECONDS; i++) {
    await call();
  }
  const walls: number[] = [];
  while (walls.length < count) {
    const begin = performance.now();
    await call();
    walls.push(1000 * (performance.now() - begin));
  }
  return walls;
}

/** All rounds of a case as a line of the result. */
export function lineOf(
  wanted: GpuCase,
  rounds: readonly Measurement[],
  limits: MeasuredLimits,
): BenchLine {
  const { family, shape, dtype, bytes, flops } = wanted;
  const time = samples(rounds.flatMap(({ times }) => times));
  const walls = rounds.flatMap(({ walls }) => walls);
  const [{ kernel, workingSet }] = rounds;
  return {
    family,
    library: "kvasir",
    shape,
    dtype,
    kernel,
    time,
    ...walls.length > 0 ? { wall: samples(walls) } : {},
    bytes,
    flops,
    ...boundOf(bytes, flops, time.median, limits),
    fitsCache: workingSet < LARGER_THAN_CACHE,
    error: Math.max(...rounds.map(({ error }) => error)),
  };
}

/** What bounds a kernel on this machine, and the share of it that `microseconds` reach. */
export function boundOf(
  bytes: number,
  flops: number,
  microseconds: number,
  { readGbPerSecond, f32Tflops }: MeasuredLimits,
): { bound: "bandwidth" | "arithmetic"; share: number } {
  const moving = bytes / readGbPerSecond / 1000;
  const computing = flops / f32Tflops / 1e6;
  return {
    bound: moving >= computing ? "bandwidth" : "arithmetic",
    share: Math.max(moving, computing) / microseconds,
  };
}
