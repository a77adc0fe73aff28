/** Appended keys are turned by their positions before they are scaled and stored. */

import assert from "node:assert/strict";
import { appendPagedKvCache, type Device } from "@kvasir/attention";
import { type AppendSpec, drawAppend, runAppend, turnedMiss } from "../support/append.ts";
import { onEachBackend } from "../support/device.ts";
import { rotate } from "../support/positions.ts";
import { normals } from "../support/values.ts";

const SPEC: AppendSpec = {
  lengths: [9, 4],
  appended: [9, 3],
  pageSize: 3,
  heads: 2,
  headDim: 64,
  dtype: "float32",
  kvDtype: "float32",
  kvLayout: "NHD",
  joined: true,
  rope: { scale: 1, theta: 1e4 },
};

async function check(device: Device, spec: Partial<AppendSpec>) {
  const c = drawAppend({ ...SPEC, ...spec });
  assert.equal(turnedMiss(c, await runAppend(device, c)), null, JSON.stringify(spec));
}

onEachBackend("appended keys are turned, in every dtype and kind of cache", async (device) => {
  for (
    const kvDtype of ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const
  ) {
    for (const dtype of ["float32", "float16", "bfloat16"] as const) {
      await check(device, { kvDtype, dtype });
    }
    await check(device, { kvDtype, joined: false, kvLayout: "HND" });
  }
});

onEachBackend("appended keys of any length are turned, and scaled", async (device) => {
  for (const headDim of [8, 16, 24, 40, 128, 256]) {
    await check(device, { headDim, kScale: [3, 0.2], vScale: 5 });
    await check(device, { headDim, dtype: "float16", kvDtype: "float8_e5m2", kScale: 0.1 });
    await check(device, { headDim, headDimV: 48, joined: false, rope: { scale: 4, theta: 5e5 } });
  }
});

onEachBackend("appended keys are turned at any position", async (device) => {
  // One page serves as all pages of a long request: only the last position is written.
  const positions = [0, 1, 255, 256, 4095, 4096, 70_000, 131_071, 1_000_000];
  const headDim = 32;
  const row = normals(headDim, 5);
  using key = device.tensor(row, [1, 1, headDim], "float32");
  for (const position of positions) {
    using cache = device.empty([1, 2, 1, 1, headDim], "float32");
    const pages = new Int32Array(position + 1);
    await appendPagedKvCache(key, key, [0], [position], cache, pages, [0, position + 1], [1], {
      posEncodingMode: "ROPE_LLAMA",
    });
    const got = await cache.read();
    const exact = rotate(row, position, { scale: 1, theta: 1e4 }, (x) => x);
    exact.forEach((x, i) => {
      assert.ok(Math.abs(got[i] - x) < 2e-6, `position ${position}, ${i}: ${got[i]}, not ${x}`);
    });
    assert.deepEqual(got.subarray(headDim), row, "values are not turned");
  }
});
