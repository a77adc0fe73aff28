/** Split-KV schedules, without a GPU: all keys once, balanced, and no split that does not pay. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  cutKeys,
  type KeyRange,
  scheduleKeys,
  type ScheduleOptions,
} from "../../src/webgpu/decode_schedule.ts";

const H200: ScheduleOptions = {
  workgroupsPerStretch: 8,
  workgroups: 528,
  minKeys: 64,
  stepKeys: 32,
};

function ranges(lengths: readonly number[]): KeyRange[] {
  return lengths.map((end, request) => ({ request, first: 0, end }));
}

/** The keys that each workgroup of the device takes, where each in turn takes the next stretch. */
function loads(stretches: readonly KeyRange[], options: ScheduleOptions): Float64Array {
  const busy = new Float64Array(Math.floor(options.workgroups / options.workgroupsPerStretch));
  for (const { first, end } of stretches) {
    const free = busy.indexOf(Math.min(...busy));
    busy[free] += end - first;
  }
  return busy;
}

function imbalance(stretches: readonly KeyRange[], options: ScheduleOptions): number {
  const busy = loads(stretches, options);
  const mean = busy.reduce((sum, keys) => sum + keys, 0) / busy.length;
  return Math.max(...busy) / mean;
}

Deno.test("scheduleKeys() takes every key of every request once", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(20_000), { minLength: 1, maxLength: 40 }),
      fc.constantFrom(1, 2, 8, 32, 600),
      fc.constantFrom(16, 132, 528),
      fc.constantFrom(1, 24, 32, 64),
      (lengths, workgroupsPerStretch, workgroups, stepKeys) => {
        const options = { workgroupsPerStretch, workgroups, minKeys: 64, stepKeys };
        const stretches = scheduleKeys(ranges(lengths), options);
        lengths.forEach((length, request) => {
          const own = stretches.filter((stretch) => stretch.request === request)
            .sort((a, b) => a.first - b.first);
          assert.ok(own.length > 0, "an empty request has a result too");
          assert.equal(own[0].first, 0);
          own.forEach(({ first, end }, i) => {
            assert.equal(end, own[i + 1]?.first ?? length);
            assert.ok(first < end || length === 0);
            if (i + 1 < own.length) assert.equal((end - first) % stepKeys, 0);
          });
        });
        const sizes = stretches.map(({ first, end }) => end - first);
        assert.deepEqual(sizes, sizes.toSorted((a, b) => b - a), "the longest first");
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("scheduleKeys() leaves a batch whole that fills the device", () => {
  for (const [batch, length] of [[64, 4096], [16, 1024], [256, 1024], [66, 100_000]]) {
    const perStretch = batch === 16 ? 32 : 8;
    const options = { ...H200, workgroupsPerStretch: perStretch };
    const stretches = scheduleKeys(ranges(new Array(batch).fill(length)), options);
    assert.equal(stretches.length, batch, `${batch} x ${length}`);
  }
});

Deno.test("scheduleKeys() leaves few keys whole: a merge would cost more", () => {
  for (const length of [1, 31, 64, 100]) {
    assert.equal(scheduleKeys(ranges([length]), H200).length, 1, `${length}`);
  }
});

Deno.test("scheduleKeys() splits a long request over the whole device", () => {
  const stretches = scheduleKeys(ranges([131_072]), H200);
  assert.ok(stretches.length >= 60 && stretches.length <= 66, `${stretches.length} stretches`);
  assert.ok(imbalance(stretches, { ...H200, workgroups: 8 * stretches.length }) < 1.05);
});

Deno.test("scheduleKeys(): the worst workgroup has at most 1.15 times the mean", () => {
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  // Fewer keys than these leave less to each workgroup than a step or two are worth.
  const batches = [[3, 32_768], [20, 32_768], [48, 4096], [64, 8192], [100, 4096], [200, 32_768]];
  for (const [batch, most] of batches) {
    for (let round = 0; round < 10; round++) {
      const lengths = Array.from({ length: batch }, () => 1 + Math.floor(random() * most));
      const worst = imbalance(scheduleKeys(ranges(lengths), H200), H200);
      assert.ok(worst <= 1.15, `${batch} lengths up to ${most}: ${worst.toFixed(3)}`);
    }
  }
});

Deno.test("scheduleKeys() is quick where stretches are many", () => {
  const lengths = Array.from({ length: 5000 }, (_, i) => 1 + (i * 7919) % 8192);
  const begin = performance.now();
  assert.ok(scheduleKeys(ranges(lengths), H200).length >= 5000);
  assert.ok(performance.now() - begin < 500, `${performance.now() - begin} ms`);
});

Deno.test("cutKeys() cuts into equal parts of whole steps", () => {
  const cut = (end: number, most: number) =>
    cutKeys([{ request: 0, first: 10, end: 10 + end }], most, 32)
      .map(({ first, end }) => end - first);
  assert.deepEqual(cut(100, 100), [100]);
  assert.deepEqual(cut(100, 64), [64, 36]);
  assert.deepEqual(cut(1000, 300), [256, 256, 256, 232]);
  assert.deepEqual(cut(0, 64), [0]);
});
