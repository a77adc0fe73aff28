/**
 * GPU time by timestamp queries, over many calls in each of several passes.
 *
 * What makes two runs agree:
 * - Warm-up and timed passes are encoded first and submitted together, so the GPU neither waits for
 *   the host nor idles between them; an idle GPU lowers its clocks, and reading a time back takes
 *   Deno 10 ms. The warm-up is the work itself, at its size.
 * - A pass is timed from the end of the one before: a pass may be said to begin while the last
 *   dispatch of the one before still runs.
 * - Passes go on until their median is known well enough, or the budget is spent.
 * - The bench runs its whole list several times over (`rounds`), with new memory each time, so that
 *   minutes of a slower clock and an unlucky place in memory are a part of the samples only.
 *
 * @module
 */

import type { Dispatch } from "../../src/webgpu/dispatch.ts";
import { MAP_MODE_READ, USAGE } from "../../src/webgpu/flags.ts";

/** How long a measurement may take. */
export interface TimingBudget {
  /** How often the whole list of cases is run. */
  readonly rounds: number;
  /** Passes that are submitted, and timed, together. */
  readonly passes: number;
  /** So often at most, while the median is not settled. */
  readonly batches: number;
  /** GPU time of one pass, in milliseconds, that decides how many calls it holds. */
  readonly passMilliseconds: number;
  /** GPU time before the timed passes, in milliseconds: an idle GPU takes a while to reach its clock. */
  readonly warmMilliseconds: number;
  /**
   * Wall time for which a GPU that idled for {@linkcode IDLE_MILLISECONDS} works before anything is
   * timed: while a kernel was compiled it fell to a sixth of its clock (345 of 1980 MHz on an H200),
   * and it stays there for the first tenths of a second of work.
   */
  readonly heatMilliseconds: number;
  /** Calls whose wall time is taken, in each round. */
  readonly wallCalls: number;
}

/** A median is settled when it is known within this, as a share of itself. */
const SETTLED = 0.005;
/** After so long without work a GPU counts as cold. */
const IDLE_MILLISECONDS = 300;
const MOST_CALLS = 2000;
const MOST_PASSES = 65;
/** Two stamps a pass, or a dispatch, of 8 bytes. */
const STAMPS = 2 * MOST_PASSES;

/** When something ran on the GPU, in nanoseconds of its clock. */
export interface Interval {
  readonly begin: number;
  readonly end: number;
}

/** A dispatch that can be encoded without making anything. */
interface Bound {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly grid: readonly [number, number];
}

/** Times dispatches on one device. */
export class GpuTimer {
  readonly #device: GPUDevice;
  readonly #querySet: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;
  /** When the GPU last was seen at work, and whether it has rested since it was heated. */
  #busy = -Infinity;
  #isCold = true;

  constructor(device: GPUDevice) {
    this.#device = device;
    this.#querySet = device.createQuerySet({ type: "timestamp", count: STAMPS });
    this.#resolved = device.createBuffer({
      size: 8 * STAMPS,
      usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC,
    });
    this.#staging = device.createBuffer({
      size: 8 * STAMPS,
      usage: USAGE.MAP_READ | USAGE.COPY_DST,
    });
  }

  /**
   * Microseconds of one call, one figure a pass. `calls` are taken in turn, so that several copies
   * of the inputs keep a cache from holding one.
   */
  async time(
    calls: readonly (readonly Dispatch[])[],
    { passes, batches, passMilliseconds, warmMilliseconds, heatMilliseconds }: TimingBudget,
  ): Promise<number[]> {
    const bound = calls.map((call) => this.#bind(call));
    await this.#heat(bound, passMilliseconds, heatMilliseconds);
    // The first calls may be slow: memory is cleared when it is first used. The rest find out how
    // many calls fill a pass; a lone call is slower than one among many.
    let count = calls.length;
    let [each] = await this.#passes(bound, count, 0, 1);
    for (let i = 0; i < 2; i++) {
      count = callsOf(each, passMilliseconds, calls.length);
      [each] = await this.#passes(bound, count, 0, 1);
    }
    const warm = Math.ceil(1000 * warmMilliseconds / Math.max(each * count, 1));
    const times: number[] = [];
    for (let batch = 0; batch < batches && !(batch > 0 && isSettled(times)); batch++) {
      // Each batch has waited for the times of the one before.
      times.push(...await this.#passes(bound, count, warm, passes));
    }
    return times;
  }

  /** Runs every call once, untimed. */
  async once(calls: readonly (readonly Dispatch[])[]): Promise<void> {
    await this.#passes(calls.map((call) => this.#bind(call)), calls.length, 0, 1);
  }

  /** When each of `dispatches` ran, each in a pass of its own, after a warm-up. */
  async trace(
    dispatches: readonly Dispatch[],
    { passMilliseconds, warmMilliseconds, heatMilliseconds }: TimingBudget,
  ): Promise<Interval[]> {
    if (dispatches.length >= MOST_PASSES) {
      throw new Error(`${dispatches.length} dispatches are more than a profile holds`);
    }
    const call = this.#bind(dispatches);
    await this.#heat([call], passMilliseconds, heatMilliseconds);
    const [each] = await this.#passes([call], 1, 0, 1);
    const warm = callsOf(each, warmMilliseconds, 1);
    const encoder = this.#device.createCommandEncoder();
    this.#encode(encoder, [call], warm, 0);
    for (const [i, dispatch] of call.entries()) this.#encode(encoder, [[dispatch]], 1, 1 + i);
    const intervals = await this.#read(encoder, 1 + call.length);
    return durations(intervals)
      .map((duration, i) => ({ begin: intervals[i].end - duration, end: intervals[i].end }))
      .slice(1);
  }

  destroy(): void {
    for (const resource of [this.#querySet, this.#resolved, this.#staging]) resource.destroy();
  }

  #bind(call: readonly Dispatch[]): Bound[] {
    return call.map(({ kernel, resources, grid }) => ({
      pipeline: kernel.pipeline,
      group: this.#device.createBindGroup({
        label: kernel.name,
        layout: kernel.layout,
        entries: resources.map((resource, binding) => ({ binding, resource })),
      }),
      grid,
    }));
  }

  /** Has a GPU that idled work until its clock is up. */
  async #heat(
    calls: readonly (readonly Bound[])[],
    passMilliseconds: number,
    heatMilliseconds: number,
  ): Promise<void> {
    this.#noteRest();
    if (!this.#isCold) return;
    const until = performance.now() + heatMilliseconds;
    let count = calls.length;
    while (performance.now() < until) {
      const [each] = await this.#passes(calls, count, 0, 1);
      // Long enough that reading the time back is no rest.
      count = callsOf(each, 10 * passMilliseconds, calls.length);
    }
    this.#isCold = false;
  }

  #noteRest(): void {
    if (performance.now() - this.#busy > IDLE_MILLISECONDS) this.#isCold = true;
  }

  /** Microseconds of one of `count` calls, in each of `passes` that follow `warm` others. */
  async #passes(
    calls: readonly (readonly Bound[])[],
    count: number,
    warm: number,
    passes: number,
  ): Promise<number[]> {
    // The last pass of the warm-up says when the first of the others began.
    const ahead = Math.min(warm, 1);
    const encoder = this.#device.createCommandEncoder();
    for (let i = ahead; i < warm; i++) this.#encode(encoder, calls, count, null);
    for (let i = 0; i < ahead + passes; i++) this.#encode(encoder, calls, count, i);
    const intervals = await this.#read(encoder, ahead + passes);
    return durations(intervals).slice(ahead).map((nanoseconds) => nanoseconds / 1000 / count);
  }

  /** One pass of `count` calls; its times go to place `stamp`, unless that is null. */
  #encode(
    encoder: GPUCommandEncoder,
    calls: readonly (readonly Bound[])[],
    count: number,
    stamp: number | null,
  ): void {
    const timestampWrites = stamp === null ? undefined : {
      querySet: this.#querySet,
      beginningOfPassWriteIndex: 2 * stamp,
      endOfPassWriteIndex: 2 * stamp + 1,
    };
    const pass = encoder.beginComputePass(timestampWrites && { timestampWrites });
    for (let i = 0; i < count; i++) {
      for (const { pipeline, group, grid } of calls[i % calls.length]) {
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(...grid);
      }
    }
    pass.end();
  }

  async #read(encoder: GPUCommandEncoder, count: number): Promise<Interval[]> {
    this.#noteRest();
    encoder.resolveQuerySet(this.#querySet, 0, 2 * count, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, 16 * count);
    this.#device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(MAP_MODE_READ);
    this.#busy = performance.now();
    const stamps = new BigUint64Array(this.#staging.getMappedRange());
    const first = stamps[0];
    const at = (i: number) => Number(stamps[i] - first);
    const intervals = Array.from(
      { length: count },
      (_, i) => ({ begin: at(2 * i), end: at(2 * i + 1) }),
    );
    this.#staging.unmap();
    return intervals;
  }
}

/**
 * How long each of several passes took that follow each other: from the end of the one before, where
 * it is said to have begun earlier.
 */
export function durations(intervals: readonly Interval[]): number[] {
  return intervals.map(({ begin, end }, i) =>
    end - (i === 0 ? begin : Math.max(begin, intervals[i - 1].end))
  );
}

/** How many calls of `each` microseconds fill a pass: as often each of `copies`. */
export function callsOf(each: number, passMilliseconds: number, copies: number): number {
  const wanted = 1000 * passMilliseconds / Math.max(each, 0.1);
  return Math.ceil(Math.min(Math.max(wanted, 1), MOST_CALLS) / copies) * copies;
}

/** Whether the median of `times` is known within {@linkcode SETTLED}, by their middle half. */
export function isSettled(times: readonly number[]): boolean {
  const sorted = times.slice().sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))];
  // The notch of a box plot: 1.57 times the middle half over the root of the number.
  return 1.57 * (at(0.75) - at(0.25)) / Math.sqrt(sorted.length) <= SETTLED * at(0.5);
}
