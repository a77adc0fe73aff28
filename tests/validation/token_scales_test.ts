/** Every misuse of scales of tokens gets its typed error, and nothing is computed or written. */

import assert from "node:assert/strict";
import {
  appendPagedKvCache,
  batchDecodeWithPaddedKvCache,
  BatchDecodeWithPagedKvCache,
  batchPrefillWithPaddedKvCache,
  BatchPrefillWithRaggedKvCache,
  openDevice,
  PagedKvCache,
  singleDecodeWithKvCache,
  singlePrefillWithKvCache,
} from "@kvasir/attention";
import { gpuTest, onEachBackend, openGpuDevice } from "../support/device.ts";
import { assertFails } from "../support/failures.ts";

const SUBJECT = "options.kvScales";

onEachBackend("calls refuse scales of tokens that do not fit", async (device) => {
  using q = device.empty([2, 4, 8], "float32");
  using q4 = device.empty([2, 3, 4, 8], "float32");
  using k = device.empty([2, 5, 2, 8], "float8_e4m3fn");
  using k1 = device.empty([5, 2, 8], "float8_e4m3fn");
  using q1 = device.empty([4, 8], "float32");
  const calls: Record<string, [right: number[], call: (kvScales: never) => Promise<unknown>]> = {
    "padded decode": [
      [2, 2, 5, 2],
      (kvScales) => batchDecodeWithPaddedKvCache(q, k, k, { kvScales }),
    ],
    "padded prefill": [
      [2, 2, 5, 2],
      (kvScales) => batchPrefillWithPaddedKvCache(q4, k, k, { kvScales }),
    ],
    "single decode": [[2, 5, 2], (kvScales) => singleDecodeWithKvCache(q1, k1, k1, { kvScales })],
    "single prefill": [[2, 5, 2], (kvScales) => singlePrefillWithKvCache(q, k1, k1, { kvScales })],
  };
  using other = await openDevice({ backend: "wasm" });
  for (const [name, [right, call]] of Object.entries(calls)) {
    for (const shape of [[], right.slice(1), [1, ...right], right.with(-2, 6), right.with(-3, 3)]) {
      using tensor = device.empty(shape, "float32");
      const label = `${name}, ${shape}`;
      await assertFails(
        label,
        () => call(tensor as never),
        "ShapeError",
        SUBJECT,
        /in both layouts/,
      );
    }
    using half = device.empty(right, "float16");
    await assertFails(name, () => call(half as never), "DTypeError", SUBJECT);
    for (const value of [1, "token", [1, 1], null, new Float32Array(20)]) {
      await assertFails(`${name}, ${value}`, () => call(value as never), "OptionError", SUBJECT);
    }
    using foreign = other.empty(right, "float32");
    await assertFails(name, () => call(foreign as never), "DeviceMismatchError", SUBJECT);
    const gone = device.empty(right, "float32");
    gone.destroy();
    await assertFails(name, () => call(gone as never), "DestroyedError", SUBJECT);
  }
});

onEachBackend(
  "planned calls want scales where the plan says so, and only there",
  async (device) => {
    const sizes = { numQoHeads: 4, numKvHeads: 2, headDim: 8, qDtype: "float32" } as const;
    const table = { indptr: [0, 2], indices: [1, 0], lastPageLen: [2], pageSize: 3 };
    const kvDtype = "float8_e4m3fn";
    using decode = new BatchDecodeWithPagedKvCache(device);
    const plan = (kvScales: unknown) => () =>
      decode.plan({ ...sizes, ...table, kvDtype, kvScales: kvScales as never });
    using one = device.empty([1], "float32");
    for (const value of ["head", true, 1, one]) {
      await assertFails(`plan ${value}`, plan(value), "OptionError", SUBJECT, /"none" or "token"/);
    }
    using q = device.empty([1, 4, 8], "float32");
    using cache = device.empty([2, 2, 3, 2, 8], kvDtype);
    using right = device.empty([2, 2, 3, 2], "float32");
    const run = (kvScales: unknown, kvCache: unknown = cache) => async () => {
      using out = await decode.run(q, kvCache as never, { kvScales: kvScales as never });
      return out.shape;
    };
    for (const none of [undefined, "none"]) {
      plan(none)();
      await assertFails(
        "none planned",
        run(right),
        "PlanError",
        SUBJECT,
        /expected none, by the plan/,
      );
      await run(undefined)();
    }
    plan("token")();
    await assertFails("none given", run(undefined), "PlanError", SUBJECT, /got no scales/);
    await assertFails("no tensor", run([1]), "OptionError", SUBJECT);
    for (const shape of [[2, 2, 2], [3, 2, 3, 2], [2, 2, 2, 3], [2, 2, 4, 2]]) {
      using tensor = device.empty(shape, "float32");
      await assertFails(`${shape}`, run(tensor), "ShapeError", SUBJECT, /\[2, 2, 3, 2\]/);
    }
    using half = device.empty([2, 2, 3, 2], "float16");
    await assertFails("dtype", run(half), "DTypeError", SUBJECT);
    assert.deepEqual(await run(right)(), [1, 4, 8]);

    const pages = { numPages: 2, pageSize: 3, numKvHeads: 2, headDim: 8, dtype: kvDtype } as const;
    using own = PagedKvCache.create(device, { ...pages, kvScales: "token" });
    using without = PagedKvCache.create(device, pages);
    assert.equal(without.scales(0), null);
    await assertFails(
      "two of them",
      run(right, own),
      "OptionError",
      SUBJECT,
      /beside a PagedKvCache/,
    );
    await assertFails("a cache without", run(undefined, without), "PlanError", SUBJECT);
    await run(undefined, own)();
    plan("none")();
    await assertFails("a cache with", run(undefined, own), "PlanError", SUBJECT);

    using ragged = new BatchPrefillWithRaggedKvCache(device);
    ragged.plan({ ...sizes, qoIndptr: [0, 1], kvIndptr: [0, 5], kvDtype, kvScales: "token" });
    using k = device.empty([5, 2, 8], kvDtype);
    const prefill = (kvScales?: typeof right) => () => ragged.run(q, k, k, { kvScales });
    await assertFails("none given", prefill(), "PlanError", SUBJECT);
    await assertFails("another shape", prefill(right), "PlanError", SUBJECT, /\[2, 5, 2\]/);
  },
);

onEachBackend("appends refuse scales of tokens that do not fit", async (device) => {
  using rows = device.tensor(new Float32Array(16).fill(1), [1, 2, 8], "float32");
  using cache = device.empty([2, 2, 3, 2, 8], "float8_e4m3fn");
  using half = device.empty([2, 2, 3, 2, 8], "float16");
  using scales = device.empty([2, 2, 3, 2], "float32");
  const append = (options: object, kvCache = cache) => () =>
    appendPagedKvCache(rows, rows, [0], [0], kvCache, [1], [0, 1], [1], options);
  await assertFails("dtype", append({ kvScales: scales }, half), "DTypeError", SUBJECT, /float16/);
  for (const name of ["kScale", "vScale"]) {
    const options = { kvScales: scales, [name]: 2 };
    await assertFails(name, append(options), "OptionError", SUBJECT, new RegExp(name));
  }
  using few = device.empty([1, 2, 3, 2], "float32");
  await assertFails("shape", append({ kvScales: few }), "ShapeError", SUBJECT, /\[2, 2, 3, 2\]/);
  await assertFails("a number", append({ kvScales: 1 }), "OptionError", SUBJECT);
  assert.ok((await cache.readBytes()).every((byte) => byte === 0));
  assert.ok((await scales.readBytes()).every((byte) => byte === 0));

  const pages = { numPages: 2, pageSize: 3, numKvHeads: 2, headDim: 8 } as const;
  const create = (options: object) => () =>
    PagedKvCache.create(device, { ...pages, dtype: "float8_e4m3fn", ...options });
  const token = { kvScales: "token" };
  await assertFails("dtype", create({ ...token, dtype: "bfloat16" }), "DTypeError", SUBJECT);
  await assertFails("kScale", create({ ...token, kScale: 2 }), "OptionError", SUBJECT);
  await assertFails("a word", create({ kvScales: "head" }), "OptionError", SUBJECT);
});

gpuTest("an append refuses scales within the memory of what it reads or writes", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const { STORAGE, COPY_SRC } = GPUBufferUsage;
  const buffer = gpuDevice.createBuffer({ size: 2048, usage: STORAGE | COPY_SRC });
  using rows = device.tensorFromBuffer(buffer, [1, 2, 8], "float32");
  using cache = device.empty([2, 2, 3, 2, 8], "float8_e4m3fn");
  using scales = device.tensorFromBuffer(buffer, [2, 2, 3, 2], "float32", 1024);
  using value = device.empty([1, 2, 8], "float32");
  await assertFails(
    "the rows' buffer",
    () => appendPagedKvCache(rows, value, [0], [0], cache, [1], [0, 1], [1], { kvScales: scales }),
    "OptionError",
    SUBJECT,
    /the buffer of appendKey/,
  );
  using pages = device.tensorFromBuffer(buffer, [2, 2, 3, 2, 8], "float8_e4m3fn", 1024);
  await assertFails(
    "the cache's bytes",
    () => appendPagedKvCache(value, value, [0], [0], pages, [1], [0, 1], [1], { kvScales: scales }),
    "OptionError",
    SUBJECT,
    /the buffer of kvCache/,
  );
  buffer.destroy();
});
