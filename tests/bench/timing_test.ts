/** How the bench times the GPU: its arithmetic, and what it submits, by a device that notes it. */

import assert from "node:assert/strict";
import { callsOf, durations, GpuTimer, isSettled } from "../../bench/gpu/timing.ts";
import { samples } from "../../bench/results.ts";
import type { Dispatch } from "../../src/webgpu/dispatch.ts";

Deno.test("samples() gives the median of an even number of times too", () => {
  assert.deepEqual(samples([4, 1, 3]), { median: 3, min: 1, max: 4, raw: [4, 1, 3] });
  assert.equal(samples([4, 1, 2, 3]).median, 2.5);
});

Deno.test("durations() counts from the end of the pass before", () => {
  assert.deepEqual(
    durations([{ begin: 10, end: 20 }, { begin: 15, end: 32 }, { begin: 40, end: 45 }]),
    [10, 12, 5],
  );
});

Deno.test("callsOf() fills a pass with whole turns of the copies", () => {
  assert.equal(callsOf(100, 10, 1), 100);
  assert.equal(callsOf(100, 10, 8), 104);
  assert.equal(callsOf(50_000, 10, 3), 3);
  // A clock that has not moved yet does not make endless passes.
  assert.equal(callsOf(0, 10, 1), 2000);
});

Deno.test("isSettled() asks for a median that is known within half a per cent", () => {
  const around = (spread: number, count: number) =>
    Array.from({ length: count }, (_, i) => 100 + spread * ((i % 5) - 2) / 2);
  assert.ok(isSettled(around(0.5, 12)));
  assert.ok(!isSettled(around(5, 12)));
  // An outlier is no matter; more passes make a median surer.
  assert.ok(isSettled([...around(0.5, 12), 180]));
  assert.ok(isSettled(around(5, 400)));
});

/** A device on which every dispatch takes 1000 ns, and the first 3000. */
function notingDevice() {
  let clock = 0;
  let isFirst = true;
  const submissions: { pass: string[]; isTimed: boolean }[][] = [];
  let stamps: bigint[] = [];
  const device = {
    createQuerySet: () => ({ destroy() {} }),
    createBuffer: () => ({
      destroy() {},
      unmap() {},
      mapAsync: () => Promise.resolve(),
      getMappedRange: () => BigUint64Array.from(stamps).buffer,
    }),
    createBindGroup: ({ label }: { label: string }) => label,
    queue: { submit: () => {} },
    createCommandEncoder() {
      const passes: { pass: string[]; isTimed: boolean }[] = [];
      submissions.push(passes);
      stamps = [];
      return {
        beginComputePass(descriptor?: {
          timestampWrites: { beginningOfPassWriteIndex: number; endOfPassWriteIndex: number };
        }) {
          const noted = { pass: [] as string[], isTimed: descriptor !== undefined };
          passes.push(noted);
          const begin = clock;
          return {
            setPipeline() {},
            setBindGroup: (_: number, group: string) => noted.pass.push(group),
            dispatchWorkgroups() {
              clock += isFirst ? 3000 : 1000;
              isFirst = false;
            },
            end() {
              if (!descriptor) return;
              const { timestampWrites: writes } = descriptor;
              stamps[writes.beginningOfPassWriteIndex] = BigInt(begin);
              stamps[writes.endOfPassWriteIndex] = BigInt(clock);
            },
          };
        },
        resolveQuerySet() {},
        copyBufferToBuffer() {},
        finish() {},
      };
    },
  };
  return { device: device as unknown as GPUDevice, submissions };
}

const dispatch = (name: string) =>
  ({ kernel: { name }, resources: [], grid: [1, 1] }) as unknown as Dispatch;
const BUDGET = {
  rounds: 1,
  passes: 4,
  batches: 3,
  passMilliseconds: 0.008,
  warmMilliseconds: 0.04,
  heatMilliseconds: 0,
  wallCalls: 0,
};

Deno.test("GpuTimer times all dispatches of a call, and its copies in turn", async () => {
  const { device, submissions } = notingDevice();
  const copies = ["a", "b"].map((name) => [dispatch(`${name}1`), dispatch(`${name}2`)]);
  const times = await new GpuTimer(device).time(copies, BUDGET);
  // Two dispatches of a microsecond; the slow first one is of no account.
  assert.deepEqual(times, [2, 2, 2, 2]);
  for (const { pass } of submissions.flat()) {
    assert.deepEqual(pass.slice(0, 4), ["a1", "a2", "b1", "b2"]);
    assert.equal(pass.length % 4, 0);
  }
});

Deno.test("GpuTimer submits the warm-up and the timed passes together, at one size", async () => {
  const { device, submissions } = notingDevice();
  await new GpuTimer(device).time([[dispatch("a")]], BUDGET);
  // The times do not spread, so there is one batch: after the estimates, one submission.
  const passes = submissions[submissions.length - 1];
  // 5 passes of 8 us are 40 us of warm-up, of which the last is timed, for its end.
  assert.deepEqual(passes.map(({ isTimed }) => isTimed), [
    ...[false, false, false, false],
    ...[true, true, true, true, true],
  ]);
  assert.ok(passes.every(({ pass }) => pass.length === 8));
  assert.equal(submissions.length, 4);
});

Deno.test("GpuTimer heats a GPU that idled, and no other", async () => {
  const { device, submissions } = notingDevice();
  const timer = new GpuTimer(device);
  const budget = { ...BUDGET, heatMilliseconds: 20 };
  assert.deepEqual(await timer.time([[dispatch("a")]], budget), [1, 1, 1, 1]);
  assert.ok(
    submissions.length > 5,
    "twenty milliseconds of submissions before the four of a timing",
  );
  const cold = submissions.length;
  await timer.time([[dispatch("a")]], budget);
  assert.equal(submissions.length, cold + 4);
});

Deno.test("GpuTimer traces each dispatch of a call after a warm-up", async () => {
  const { device } = notingDevice();
  const trace = await new GpuTimer(device).trace([dispatch("a"), dispatch("b")], BUDGET);
  assert.deepEqual(trace.map(({ begin, end }) => end - begin), [1000, 1000]);
  assert.equal(trace[1].begin, trace[0].end);
});
