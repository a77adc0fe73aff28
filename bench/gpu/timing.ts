/**
 * GPU time by timestamp queries, over many dispatches in one pass.
 *
 * @module
 */

import { type Dispatch, record } from "../../src/webgpu/dispatch.ts";
import { type Samples, samples } from "../results.ts";
import { MAP_MODE_READ, USAGE } from "../../src/webgpu/flags.ts";

const TIMESTAMPS_BYTES = 16;

/** How long a measurement may take. */
export interface TimingBudget {
  /** Passes that are timed. */
  readonly passes: number;
  /** GPU time of one pass, in milliseconds, that decides how many dispatches it holds. */
  readonly passMilliseconds: number;
  /** Time spent before, in milliseconds: an idle GPU takes a while to reach its clock. */
  readonly warmMilliseconds: number;
}

/** Times dispatches on one device. */
export class GpuTimer {
  readonly #device: GPUDevice;
  readonly #querySet: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;

  constructor(device: GPUDevice) {
    this.#device = device;
    this.#querySet = device.createQuerySet({ type: "timestamp", count: 2 });
    this.#resolved = device.createBuffer({
      size: TIMESTAMPS_BYTES,
      usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC,
    });
    this.#staging = device.createBuffer({
      size: TIMESTAMPS_BYTES,
      usage: USAGE.MAP_READ | USAGE.COPY_DST,
    });
  }

  /**
   * Microseconds of one dispatch. `dispatches` are taken in turn, so that several copies of the
   * inputs keep a cache from holding one.
   */
  async time(dispatches: readonly Dispatch[], budget: TimingBudget): Promise<Samples> {
    // Find out how long one takes, and warm up meanwhile.
    let count = dispatches.length;
    let microseconds = await this.#pass(dispatches, count);
    const start = performance.now();
    do {
      const wanted = 1000 * budget.passMilliseconds / Math.max(microseconds / count, 0.1);
      count = Math.ceil(Math.min(Math.max(wanted, 1), 2000) / dispatches.length) *
        dispatches.length;
      microseconds = await this.#pass(dispatches, count);
    } while (performance.now() - start < budget.warmMilliseconds);
    const times: number[] = [];
    for (let i = 0; i < budget.passes; i++) {
      times.push(await this.#pass(dispatches, count) / count);
    }
    return samples(times);
  }

  destroy(): void {
    for (const resource of [this.#querySet, this.#resolved, this.#staging]) resource.destroy();
  }

  /** Microseconds of `count` dispatches in one pass. */
  async #pass(dispatches: readonly Dispatch[], count: number): Promise<number> {
    const device = this.#device;
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass({
      timestampWrites: {
        querySet: this.#querySet,
        beginningOfPassWriteIndex: 0,
        endOfPassWriteIndex: 1,
      },
    });
    for (let i = 0; i < count; i++) record(device, pass, dispatches[i % dispatches.length]);
    pass.end();
    encoder.resolveQuerySet(this.#querySet, 0, 2, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, TIMESTAMPS_BYTES);
    device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(MAP_MODE_READ);
    const [begin, end] = new BigUint64Array(this.#staging.getMappedRange());
    const nanoseconds = Number(end - begin);
    this.#staging.unmap();
    return nanoseconds / 1000;
  }
}
