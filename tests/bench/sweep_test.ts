/** The sweep's command line, and the bound that a share is taken of. */

import assert from "node:assert/strict";
import { boundOf } from "../../bench/gpu/decode.ts";
import { combinations, parseSweep } from "../../bench/gpu/sweep.ts";

Deno.test("parseSweep() reads lists by the names of the tuning constants", () => {
  assert.deepEqual(parseSweep(["maxRows=2,4", "workgroup=64"]), {
    maxRows: [2, 4],
    workgroup: [64],
  });
});

Deno.test("parseSweep() refuses unknown names and what is no number", () => {
  assert.throws(() => parseSweep(["rows=2"]), /rows is none of maxHeads, maxTeam/);
  for (const text of ["maxRows", "maxRows=", "maxRows=2,x", "maxRows=0", "maxRows=1.5"]) {
    assert.throws(() => parseSweep([text]), /expected whole numbers/, text);
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
