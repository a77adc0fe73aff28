/** Appending to paged caches, bit by bit: what is appended, and all that is not. */

import assert from "node:assert/strict";
import { appendPagedKvCache, type Device, openDevice } from "@kvasir/attention";
import {
  type AppendCase,
  type AppendSpec,
  drawAppend,
  expectedBytes,
  runAppend,
} from "../support/append.ts";
import { gpuTest, onEachBackend, openGpuDevice } from "../support/device.ts";
import { store } from "../support/storage.ts";
import { randomBits } from "../support/values.ts";

const SOURCES = ["float32", "float16", "bfloat16"] as const;
const CACHES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const;
const LAYOUTS = ["NHD", "HND"] as const;

const SPEC: AppendSpec = {
  lengths: [7, 0, 5, 1],
  appended: [3, 0, 5, 1],
  pageSize: 3,
  heads: 2,
  headDim: 16,
  dtype: "float16",
  kvDtype: "float8_e4m3fn",
  kvLayout: "NHD",
  joined: true,
};

function assertBytes(c: AppendCase, got: readonly Uint8Array[], expected: readonly Uint8Array[]) {
  expected.forEach((bytes, tensor) => {
    const at = bytes.findIndex((byte, i) => byte !== got[tensor][i]);
    if (at < 0) return;
    const { dtype, kvDtype, kvLayout, pageSize, headDim, joined } = c;
    const label = JSON.stringify({ dtype, kvDtype, kvLayout, pageSize, headDim, joined });
    assert.fail(`${label}: byte ${at} of tensor ${tensor} is ${got[tensor][at]}, not ${bytes[at]}`);
  });
}

async function check(device: Device, spec: Partial<AppendSpec>) {
  const c = drawAppend({ ...SPEC, ...spec });
  assertBytes(c, await runAppend(device, c), expectedBytes(c));
}

/** Both layouts, and one tensor or a pair. */
async function checkCaches(device: Device, spec: Partial<AppendSpec>) {
  for (const kvLayout of LAYOUTS) {
    for (const joined of [true, false]) await check(device, { ...spec, kvLayout, joined });
  }
}

for (const dtype of SOURCES) {
  onEachBackend(`appends of ${dtype} to every dtype, in every kind of cache`, async (device) => {
    for (const kvDtype of CACHES) await checkCaches(device, { dtype, kvDtype });
  });
}

onEachBackend("appends to pages of any size, in any order", async (device) => {
  for (const pageSize of [1, 3, 16]) {
    await checkCaches(device, {
      pageSize,
      lengths: [40, 16, 0, 17, 1, 33],
      appended: [40, 1, 0, 2, 1, 0],
    });
  }
});

onEachBackend("appends rows of any length", async (device) => {
  for (const headDim of [8, 24, 40, 64, 128, 256]) {
    await checkCaches(device, { headDim, heads: 3 });
    await check(device, { headDim, kvDtype: "bfloat16", dtype: "float32" });
    await check(device, { headDim, headDimV: 72, joined: false, kvLayout: "HND" });
  }
});

onEachBackend("appends rows whose length is no multiple of 8", async (device) => {
  for (const headDim of [1, 3, 6, 33]) {
    await checkCaches(device, { headDim });
    await check(device, { headDim, headDimV: 5, joined: false, dtype: "float32" });
  }
}, ["wasm"]);

onEachBackend("appends many tokens", async (device) => {
  await check(device, { lengths: [700, 900], appended: [700, 350], pageSize: 16, headDim: 64 });
});

onEachBackend("appends nothing where no token is", async (device) => {
  await checkCaches(device, { appended: [0, 0, 0, 0] });
  await checkCaches(device, { lengths: [], appended: [] });
});

onEachBackend("appended rows are multiplied by 1 / scale of their head", async (device) => {
  for (const kvDtype of CACHES) {
    for (const dtype of SOURCES) {
      await check(device, { kvDtype, dtype, kScale: 0.3, vScale: 7 });
      await check(device, { kvDtype, dtype, kScale: [3, 0.01], vScale: [1, 1 / 3], joined: false });
      await check(device, { kvDtype, dtype, vScale: [0.7, 1e-3], kvLayout: "HND" });
    }
  }
});

onEachBackend("rows of the cache's dtype keep every bit, NaN's too", async (device) => {
  for (const dtype of SOURCES) {
    const drawn = drawAppend({ ...SPEC, dtype, kvDtype: dtype });
    const { length } = drawn.key.bytes;
    const bytes = new Uint8Array(randomBits(length / 4, 3).buffer);
    const c = { ...drawn, key: { ...drawn.key, bytes } };
    assertBytes(c, await runAppend(device, c), expectedBytes(c));
  }
});

onEachBackend(
  "NaN, infinity and what is too large go into FP8 as encodeFp8 has them",
  async (device) => {
    for (const kvDtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
      for (const dtype of SOURCES) {
        for (const kScale of [1, [0.25, 8]]) {
          const c = drawAppend({ ...SPEC, dtype, kvDtype, kScale });
          for (const { bytes, values } of [c.key, c.value]) {
            values.set([NaN, Infinity, -Infinity, 1e30, -1e30], values.length - 21);
            bytes.set(store(values, dtype).bytes);
          }
          assertBytes(c, await runAppend(device, c), expectedBytes(c));
        }
      }
    }
  },
);

onEachBackend("many appends at once keep apart", async (device) => {
  const cases = Array.from({ length: 8 }, (_, i) => drawAppend({ ...SPEC, seed: i + 1 }));
  const caches = await Promise.all(cases.map((c) => runAppend(device, c)));
  caches.forEach((got, i) => assertBytes(cases[i], got, expectedBytes(cases[i])));
});

onEachBackend("an append reads its arrays when it is called", async (device) => {
  using key = device.tensor(new Float32Array(16).fill(2), [2, 1, 8], "float32");
  using cache = device.empty([2, 2, 1, 1, 8], "float32");
  const positions = Int32Array.of(0, 1);
  const indices = Int32Array.of(1, 0);
  const done = appendPagedKvCache(key, key, [0, 0], positions, cache, indices, [0, 2], [1]);
  positions.fill(9);
  indices.fill(9);
  await done;
  assert.deepEqual(new Set(await cache.read()), new Set([2]));
});

gpuTest("appends to a cache in the middle of a caller's buffer", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const usage = STORAGE | COPY_SRC | COPY_DST;
  const buffer = gpuDevice.createBuffer({ size: 1024, usage });
  gpuDevice.queue.writeBuffer(buffer, 0, new Uint8Array(1024).fill(7));
  using cache = device.tensorFromBuffer(buffer, [3, 2, 2, 1, 16], "float8_e4m3fn", 512);
  using all = device.tensorFromBuffer(buffer, [1024], "float8_e4m3fn");
  using key = device.tensor(new Float32Array(16).fill(1), [1, 1, 16], "float16");
  using value = device.tensor(new Float32Array(16).fill(2), [1, 1, 16], "float16");
  await appendPagedKvCache(key, value, [0], [3], cache, [0, 2], [0, 2], [2]);
  const expected = new Uint8Array(1024).fill(7);
  const row = 512 + 2 * 64 + 16; // page 2, place 1
  expected.fill(0x38, row, row + 16);
  expected.fill(0x40, row + 32, row + 48);
  assert.deepEqual(await all.readBytes(), expected);
  buffer.destroy();
});

gpuTest("appends to keys and values in two parts of one buffer", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const { STORAGE, COPY_SRC } = GPUBufferUsage;
  const buffer = gpuDevice.createBuffer({ size: 512, usage: STORAGE | COPY_SRC });
  using k = device.tensorFromBuffer(buffer, [2, 2, 1, 16], "float8_e4m3fn", 256);
  using v = device.tensorFromBuffer(buffer, [2, 2, 1, 16], "float8_e4m3fn");
  using key = device.tensor(new Float32Array(16).fill(1), [1, 1, 16], "float16");
  using value = device.tensor(new Float32Array(16).fill(2), [1, 1, 16], "float16");
  await appendPagedKvCache(key, value, [0], [1], [k, v], [1], [0, 1], [2]);
  const row = (tensor: number) => Float32Array.from({ length: 64 }, (_, i) => i < 48 ? 0 : tensor);
  assert.deepEqual([await k.read(), await v.read()], [row(1), row(2)]);
  buffer.destroy();
});
