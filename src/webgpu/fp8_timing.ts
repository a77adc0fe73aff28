/**
 * Runs the probe of FP8 decoding (shaders/fp8_probe.wgsl) with many ways at once: a submission and a
 * readback for the tests, and one more for the times.
 *
 * @module
 */

import { allocateStorage, type GpuStorage, smallBuffer } from "./buffers.ts";
import { USAGE } from "./flags.ts";
import { inErrorScopes, type LossGuard } from "./gpu_errors.ts";
import type { Kernel } from "./kernels.ts";
import { Readback } from "./readback.ts";

/** Words that a round of the probe decodes, unrolled. */
export const WORDS = 8;
/** Lanes of a workgroup of the probe. */
export const WORKGROUP = 256;
const CODES = 256;
/** Enough to keep the arithmetic of half a large GPU busy, and few for a small one. */
const WORKGROUPS = 64;
/** Codes that a dispatch decodes in a round. */
const CODES_A_ROUND = WORKGROUPS * WORKGROUP * WORDS * 4;

/** What a timed dispatch should take, in nanoseconds, and what a guess may lead to at most. */
const GOAL = 300_000;
const MOST_ROUNDS = 256;
const REPEATS = 3;
const REPEATS_IF_SLOW = 1;
/** Timestamps may come in steps of this part of a dispatch, no larger. */
const FINEST_PART = 0.05;

/** Bytes of what a dispatch writes, a multiple of every alignment of bindings. */
const OUT_BYTES = 1280;
const STAMP_BYTES = 8;

/** A dispatch of the probe. */
interface Pass {
  readonly kernel: Kernel;
  /** Which of the outputs it writes. */
  readonly place: number;
  readonly rounds: number;
  readonly workgroups: number;
}

/** What passes gave. */
interface PassResults {
  /** The bits of all codes, by place. */
  readonly codes: readonly Uint32Array[];
  /** Nanoseconds of each pass; 0 where it was not timed. */
  readonly times: readonly number[];
  /** The steps in which the device's clock goes, in nanoseconds; 0 likewise. */
  readonly step: number;
}

/** What a kernel gave. */
export interface Tested {
  /** The float32 bits of each code. */
  readonly bits: Uint32Array;
  /** Nanoseconds of a round, roughly; 0 where they were not asked for. */
  readonly roughTime: number;
}

/** Codes that each kernel decodes in a nanosecond, or why that is not known. */
export type Speeds =
  | { readonly untimed: null; readonly of: ReadonlyMap<Kernel, number> }
  | { readonly untimed: string };

/** What kernels decode the codes to, and if asked for on a device with timestamps, how fast, roughly. */
export async function testKernels(
  device: GPUDevice,
  guard: LossGuard,
  kernels: readonly Kernel[],
  isTimed: boolean,
): Promise<ReadonlyMap<Kernel, Tested>> {
  const first = kernels.map((kernel, place): Pass => ({ kernel, place, rounds: 0, workgroups: 1 }));
  // A kernel's first dispatch takes longer than the next.
  const second = first.map((pass) => ({ ...pass, rounds: 1, workgroups: WORKGROUPS }));
  const passes = isTimed ? [...first, ...second] : first;
  const { codes, times } = await runPasses(device, guard, passes, isTimed);
  const rough = isTimed ? times.slice(first.length) : times;
  return new Map(kernels.map((kernel, i) => [kernel, { bits: codes[i], roughTime: rough[i] }]));
}

/** How fast kernels decode, of which rough times are known: the best of a few tries each. */
export async function timeKernels(
  device: GPUDevice,
  guard: LossGuard,
  roughTimes: readonly (readonly [Kernel, number])[],
): Promise<Speeds> {
  const once = roughTimes.map(([kernel, time], place): Pass => {
    const rounds = Math.min(Math.ceil(GOAL / Math.max(1, time)), MOST_ROUNDS);
    return { kernel, place, rounds, workgroups: WORKGROUPS };
  });
  // In turns, so that a slow moment of the device hits all.
  const isSlow = roughTimes.every(([, time]) => time > GOAL);
  const length = isSlow ? REPEATS_IF_SLOW : REPEATS;
  const passes = Array.from({ length }, () => once).flat();
  const { times, step } = await runPasses(device, guard, passes, true);
  const best = once.map((_, place) =>
    Math.min(...times.filter((_, i) => passes[i].place === place))
  );
  const shortest = Math.min(...best);
  if (!(shortest > 0 && step <= shortest * FINEST_PART)) {
    return { untimed: `the clock's steps of ${step} ns are too coarse for ${shortest} ns` };
  }
  return {
    untimed: null,
    of: new Map(once.map(({ kernel, rounds }, i) => [kernel, rounds * CODES_A_ROUND / best[i]])),
  };
}

/** The largest step that explains all timestamps: the lowest bit that any of them has. */
export function clockStep(stamps: BigUint64Array): number {
  let bits = 0n;
  for (const stamp of stamps) bits |= stamp;
  return Number(bits & -bits);
}

/** Runs passes in one submission, and reads back what they wrote and when. */
async function runPasses(
  device: GPUDevice,
  guard: LossGuard,
  passes: readonly Pass[],
  isTimed: boolean,
): Promise<PassResults> {
  const places = 1 + Math.max(...passes.map(({ place }) => place));
  const stampsAt = places * OUT_BYTES;
  const size = 2 * passes.length * STAMP_BYTES;
  const storage = allocateStorage(device, stampsAt + size, "fp8 probe");
  const made: { destroy(): void }[] = [];
  const own = <T extends { destroy(): void }>(resource: T): T => {
    made.push(resource);
    return resource;
  };
  try {
    const { done } = inErrorScopes(device, "fp8 probe", () => {
      const encoder = device.createCommandEncoder();
      const querySet = isTimed
        ? own(device.createQuerySet({ type: "timestamp", count: 2 * passes.length }))
        : null;
      passes.forEach((pass, i) => {
        const words = Uint32Array.of(pass.rounds, 0, 0, 0);
        const rounds = own(smallBuffer(device, "uniform", "fp8 probe", words));
        encodePass(
          device,
          encoder,
          storage,
          pass,
          rounds,
          querySet && {
            querySet,
            beginningOfPassWriteIndex: 2 * i,
            endOfPassWriteIndex: 2 * i + 1,
          },
        );
      });
      if (querySet) {
        const usage = USAGE.QUERY_RESOLVE | USAGE.COPY_SRC;
        const resolved = own(device.createBuffer({ label: "fp8 probe", size, usage }));
        encoder.resolveQuerySet(querySet, 0, 2 * passes.length, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, storage.buffer, stampsAt, size);
      }
      device.queue.submit([encoder.finish()]);
    });
    await guard.race(done);
    const { buffer } = await new Readback(device, guard, false).read(storage);
    const stamps = new BigUint64Array(buffer, stampsAt, 2 * passes.length);
    return {
      codes: Array.from(
        { length: places },
        (_, i) => new Uint32Array(buffer, i * OUT_BYTES, CODES),
      ),
      times: passes.map((_, i) => Number(stamps[2 * i + 1] - stamps[2 * i])),
      step: clockStep(stamps),
    };
  } finally {
    for (const resource of made) resource.destroy();
    storage.release();
  }
}

function encodePass(
  device: GPUDevice,
  encoder: GPUCommandEncoder,
  { buffer }: GpuStorage,
  { kernel, place, workgroups }: Pass,
  rounds: GPUBuffer,
  timestampWrites: GPUComputePassTimestampWrites | null,
): void {
  const out = { buffer, offset: place * OUT_BYTES, size: OUT_BYTES };
  const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(
    0,
    device.createBindGroup({
      layout: kernel.layout,
      entries: [
        { binding: 0, resource: out },
        { binding: 1, resource: { buffer: rounds } },
      ],
    }),
  );
  pass.dispatchWorkgroups(workgroups);
  pass.end();
}
