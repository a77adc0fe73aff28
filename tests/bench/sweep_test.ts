/** The sweep's command line, and the bound that a share is taken of. */

import assert from "node:assert/strict";
import { DECODE_TUNING_NAMES } from "../../src/webgpu/decode_tuning.ts";
import { PREFILL_TUNING_NAMES } from "../../src/webgpu/prefill_tuning.ts";
import { boundOf } from "../../bench/gpu/measure.ts";
import { combinations, parseSweep } from "../../bench/gpu/sweep.ts";

Deno.test("parseSweep() reads lists by the names of the tuning constants", () => {
  const names = [...DECODE_TUNING_NAMES, ...PREFILL_TUNING_NAMES];
  for (const name of names) {
    assert.deepEqual(parseSweep([`${name}=0,4`, `${name}=16`]), { [name]: [16] });
  }
  assert.deepEqual(parseSweep(["a=2,4", "b=64"], ["a", "b"]), { a: [2, 4], b: [64] });
});

Deno.test("parseSweep() refuses unknown names and what is no whole number", () => {
  assert.throws(() => parseSweep(["c=2"], ["a", "b"]), /--sweep c=2: c is none of a, b/);
  for (const text of ["a", "a=", "a=2,x", "a=-1", "a=1.5", "a=1,,2", "a=1e2"]) {
    assert.throws(() => parseSweep([text], ["a"]), /expected whole numbers/, text);
  }
});

Deno.test("combinations() makes every one once", () => {
  const all = combinations({ maxRows: [1, 2], workgroup: [64, 128, 256] });
  assert.equal(all.length, 6);
  assert.equal(new Set(all.map((tuning) => JSON.stringify(tuning))).size, 6);
  assert.deepEqual(combinations({}), [{}]);
});

Deno.test("boundOf() takes the slower of moving and computing", () => {
  const limits = {
    readGbPerSecond: 1000,
    f32Tflops: 10,
    f16Tflops: null,
    dispatchMicroseconds: 1,
    roundTripMicroseconds: 1,
  };
  // 1 MB at 1000 GB/s takes 1 us, 10 MFLOP at 10 TFLOP/s as long.
  assert.deepEqual(boundOf(2e6, 1e7, 4, limits), { bound: "bandwidth", share: 0.5 });
  assert.deepEqual(boundOf(1e6, 3e7, 4, limits), { bound: "arithmetic", share: 0.75 });
});
