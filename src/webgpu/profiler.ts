/**
 * GPU time of each dispatch, by timestamp queries, for `onProfile`.
 *
 * @module
 */

import type { KernelProfile } from "../report.ts";
import type { LossGuard } from "./gpu_errors.ts";
import { MAP_MODE_READ, USAGE } from "./flags.ts";

/** Two timestamps of 8 bytes. */
const BYTES = 16;

/** One dispatch that is being timed. */
export interface Timing {
  /** To be spread into the compute pass's descriptor. */
  readonly passDescriptor: GPUComputePassDescriptor;
  /** Records the copy of the timestamps, after the pass. */
  resolve(encoder: GPUCommandEncoder): void;
  /** Reports the time once the GPU has it. Call after submitting; does not wait. */
  report(): void;
}

/** Times dispatches of one device. */
export class Profiler {
  readonly #device: GPUDevice;
  readonly #guard: LossGuard;
  readonly #onProfile: (profile: KernelProfile) => void;

  constructor(device: GPUDevice, guard: LossGuard, onProfile: (profile: KernelProfile) => void) {
    this.#device = device;
    this.#guard = guard;
    this.#onProfile = onProfile;
  }

  /** Begins the timing of one pass. */
  begin(kernel: string): Timing {
    const device = this.#device;
    const querySet = device.createQuerySet({ type: "timestamp", count: 2 });
    const resolved = device.createBuffer({
      size: BYTES,
      usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC,
    });
    const staging = device.createBuffer({ size: BYTES, usage: USAGE.MAP_READ | USAGE.COPY_DST });
    return {
      passDescriptor: {
        timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 },
      },
      resolve(encoder) {
        encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, staging, 0, BYTES);
      },
      report: () => {
        this.#read(kernel, staging).catch(() => {
          // The device is gone, which its users hear from their own calls.
        }).finally(() => {
          for (const resource of [querySet, resolved, staging]) resource.destroy();
        });
      },
    };
  }

  async #read(kernel: string, staging: GPUBuffer): Promise<void> {
    await this.#guard.race(staging.mapAsync(MAP_MODE_READ));
    const [begin, end] = new BigUint64Array(staging.getMappedRange());
    this.#onProfile({ kernel, microseconds: Number(end - begin) / 1000 });
  }
}
