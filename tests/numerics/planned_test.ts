/** Planned paged calls: lengths that grow, encoders of the caller's, results in place, many runs. */

import assert from "node:assert/strict";
import {
  BatchDecodeWithPagedKvCache,
  BatchPrefillWithPagedKvCache,
  type Device,
  type Tensor,
} from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import { normals } from "../support/values.ts";

const BATCH = 5;
const PLAN = {
  indptr: [0, 3, 4, 9, 9, 11],
  indices: [7, 2, 12, 0, 5, 4, 1, 11, 9, 3, 8],
  lastPageLen: [3, 1, 8, 0, 5],
  numQoHeads: 6,
  numKvHeads: 2,
  headDim: 16,
  pageSize: 8,
  qDtype: "float32",
  kvDtype: "float32",
} as const;
const PAGES = 13;

function tensorsOn(device: Device) {
  const q = device.tensor(normals(BATCH * 96, 1), [BATCH, 6, 16], "float32");
  const cache = device.tensor(normals(PAGES * 2 * 8 * 32, 2), [PAGES, 2, 8, 2, 16], "float32");
  return { q, cache };
}

async function read(pending: Promise<Tensor> | Tensor) {
  using out = await pending;
  return await out.read();
}

onEachBackend("planned decode: growing lengths need no new plan", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  using grown = new BatchDecodeWithPagedKvCache(device);
  using fresh = new BatchDecodeWithPagedKvCache(device);
  grown.plan(PLAN);
  for (const lastPageLen of [[4, 2, 8, 0, 6], [8, 8, 1, 0, 8], [1, 1, 1, 0, 1], PLAN.lastPageLen]) {
    for (const options of [{}, { windowLeft: 9 }, { posEncodingMode: "ROPE_LLAMA" as const }]) {
      grown.plan({ ...PLAN, ...options });
      grown.updateLastPageLen(lastPageLen);
      fresh.plan({ ...PLAN, ...options, lastPageLen });
      assertSameBits(
        await read(grown.run(q_, cache_)),
        await read(fresh.run(q_, cache_)),
        `${lastPageLen}, ${JSON.stringify(options)}`,
      );
    }
  }
  // A failed update changes nothing.
  const before = await read(grown.run(q_, cache_));
  for (
    const bad of [[9, 1, 1, 0, 1], [0, 1, 1, 0, 1], [1, 1], "33303", [
      1,
      1,
      1.5,
      0,
      1,
    ]]
  ) {
    assert.throws(() => grown.updateLastPageLen(bad as number[]), { name: "OptionError" });
  }
  assertSameBits(await read(grown.run(q_, cache_)), before, "after failed updates");
});

onEachBackend("planned decode: a long request that grows stays split as it was", async (device) => {
  using q = device.tensor(normals(96, 1), [1, 6, 16], "float32");
  const pages = 400;
  using cache = device.tensor(normals(pages * 2 * 8 * 32, 2), [pages, 2, 8, 2, 16], "float32");
  const indices = Array.from({ length: pages }, (_, i) => (i * 7) % pages);
  using decode = new BatchDecodeWithPagedKvCache(device);
  using fresh = new BatchDecodeWithPagedKvCache(device);
  const plan = { ...PLAN, indptr: [0, pages], indices, lastPageLen: [1] };
  decode.plan(plan);
  for (let length = 2; length <= 8; length += 3) {
    decode.updateLastPageLen([length]);
    fresh.plan({ ...plan, lastPageLen: [length] });
    const got = await read(decode.run(q, cache));
    const wanted = await read(fresh.run(q, cache));
    got.forEach((x, i) => assert.ok(Math.abs(x - wanted[i]) < 2e-6, `${length}: ${i}`));
  }
});

onEachBackend("planned decode: a run has the plan of its call", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  using decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan(PLAN);
  const alone = await read(decode.run(q_, cache_));
  decode.updateLastPageLen([1, 1, 1, 0, 1]);
  const shorter = await read(decode.run(q_, cache_));
  decode.plan(PLAN);
  const first = decode.run(q_, cache_);
  decode.updateLastPageLen([1, 1, 1, 0, 1]);
  const second = decode.run(q_, cache_);
  decode.plan({ ...PLAN, smScale: 3 });
  assert.throws(() => decode.plan({ ...PLAN, indptr: [1] }));
  const third = decode.run(q_, cache_);
  decode.destroy();
  assertSameBits(await read(first), alone, "first");
  assertSameBits(await read(second), shorter, "second");
  assert.notDeepEqual(await read(third), alone);
  await assert.rejects(decode.run(q_, cache_), { name: "DestroyedError" });
});

onEachBackend("planned decode: a run that waits for kernels has its plan too", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  using decode = new BatchDecodeWithPagedKvCache(device);
  using fresh = new BatchDecodeWithPagedKvCache(device);
  const shorter = [1, 1, 1, 0, 1];
  const other = { ...PLAN, indices: PLAN.indices.toReversed(), lastPageLen: shorter };
  decode.plan(PLAN);
  const first = decode.run(q_, cache_);
  decode.updateLastPageLen(shorter);
  const second = decode.run(q_, cache_);
  decode.plan(other);
  const third = decode.run(q_, cache_);
  const got = [await read(first), await read(second), await read(third)];
  for (const [i, plan] of [PLAN, { ...PLAN, lastPageLen: shorter }, other].entries()) {
    fresh.plan(plan);
    assertSameBits(got[i], await read(fresh.run(q_, cache_)), `run ${i}`);
  }
});

onEachBackend("planned decode: a plan with other pages or options has those", async (device) => {
  const { q, cache } = tensorsOn(device);
  using _q = q, _cache = cache; // freed at the end
  using decode = new BatchDecodeWithPagedKvCache(device);
  const qScale = [1, 2, 3, 4, 5, 6];
  const plans = [
    PLAN,
    { ...PLAN, indices: PLAN.indices.toReversed() },
    { ...PLAN, indptr: [0, 2, 4, 9, 9, 11] },
    { ...PLAN, indptr: [0, 3], indices: [7, 2, 12], lastPageLen: [3] },
    { ...PLAN, qScale },
    { ...PLAN, qScale, sinks: Float32Array.of(0, 1, 2, 3, 4, 5) },
    { ...PLAN, windowLeft: 5 },
    { ...PLAN, lseBase: "ln" as const },
  ];
  for (const [turn, plan] of [...plans, ...plans.toReversed(), ...plans].entries()) {
    // A list of the caller's may hold other numbers each time.
    qScale[0] = turn;
    using one = device.tensor(normals(plan.lastPageLen.length * 96, 1), [
      plan.lastPageLen.length,
      6,
      16,
    ], "float32");
    using fresh = new BatchDecodeWithPagedKvCache(device);
    fresh.plan(plan);
    const expected = await fresh.run(one, cache, { returnLse: true });
    decode.plan(plan);
    const got = await decode.run(one, cache, { returnLse: true });
    for (const name of ["out", "lse"] as const) {
      using wanted = expected[name], tensor = got[name];
      assertSameBits(await tensor.read(), await wanted.read(), `${name} of turn ${turn}`);
    }
  }
});

onEachBackend("planned decode: one tensor and a pair, by turns", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  const values = await cache_.read();
  const half = (part: number) =>
    Float32Array.from(
      { length: PAGES * 256 },
      (_, i) => values[(2 * Math.floor(i / 256) + part) * 256 + i % 256],
    );
  using k = device.tensor(half(0), [PAGES, 8, 2, 16], "float32");
  using v = device.tensor(half(1), [PAGES, 8, 2, 16], "float32");
  using decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan(PLAN);
  const expected = await read(decode.run(q_, cache_));
  for (let i = 0; i < 2; i++) {
    assertSameBits(await read(decode.run(q_, [k, v])), expected, "a pair");
    assertSameBits(await read(decode.run(q_, cache_)), expected, "one tensor");
  }
});

onEachBackend("planned decode: other tensors of the same sizes, by turns", async (device) => {
  using decode = new BatchDecodeWithPagedKvCache(device);
  using fresh = new BatchDecodeWithPagedKvCache(device);
  decode.plan(PLAN);
  const layers = [1, 5].map((seed) => ({
    q: device.tensor(normals(BATCH * 96, seed), [BATCH, 6, 16], "float32"),
    cache: device.tensor(normals(PAGES * 512, seed + 1), [PAGES, 2, 8, 2, 16], "float32"),
    out: device.empty([BATCH, 6, 16], "float32"),
  }));
  for (let turn = 0; turn < 2; turn++) {
    for (const { q, cache, out } of layers) await decode.run(q, cache, { out });
    for (const { q, cache, out } of layers) {
      fresh.plan(PLAN);
      assertSameBits(await out.read(), await read(fresh.run(q, cache)), `turn ${turn}`);
    }
  }
  for (const tensor of layers.flatMap(({ q, cache, out }) => [q, cache, out])) tensor.destroy();
});

onEachBackend("planned decode: recorded in an encoder of the caller's", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  using decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan(PLAN);
  const expected = await decode.run(q_, cache_, { returnLse: true });
  using expectedOut = expected.out;
  using expectedLse = expected.lse;
  const { device: gpu } = (device as unknown as { engine: { device: GPUDevice } }).engine;
  using out = device.empty([BATCH, 6, 16], "float32");
  using lse = device.empty([BATCH, 6], "float32");
  const encoder = gpu.createCommandEncoder();
  for (let layer = 0; layer < 3; layer++) {
    await decode.run(q_, cache_, { out, lse, returnLse: true, encoder });
  }
  assert.ok((await out.read()).every((x) => x === 0), "nothing runs before it is submitted");
  gpu.queue.submit([encoder.finish()]);
  assertSameBits(await out.read(), await expectedOut.read(), "out");
  assertSameBits(await lse.read(), await expectedLse.read(), "lse");
}, ["webgpu", "webgpu, portable rung"]);

onEachBackend("planned decode: a buffer that its owner destroys is an error", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  const { device: gpu } = (device as unknown as { engine: { device: GPUDevice } }).engine;
  const size = 4 * BATCH * 96;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
  const buffer = gpu.createBuffer({ size, usage });
  using out = device.tensorFromBuffer(buffer, [BATCH, 6, 16], "float32");
  using decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan(PLAN);
  for (let i = 0; i < 3; i++) await decode.run(q_, cache_, { out });
  buffer.destroy();
  for (let i = 0; i < 2; i++) {
    await assert.rejects(decode.run(q_, cache_, { out }), { name: "KvasirError" });
  }
  // One of ours that was never run with before the failure of its submission.
  const { submit } = GPUQueue.prototype;
  using own = device.empty([BATCH, 6, 16], "float32");
  const dead = gpu.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_SRC });
  const encoder = gpu.createCommandEncoder();
  encoder.clearBuffer(gpu.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_DST }));
  encoder.copyBufferToBuffer(
    dead,
    0,
    gpu.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_DST }),
    0,
    16,
  );
  dead.destroy();
  const broken = encoder.finish();
  GPUQueue.prototype.submit = function () {
    submit.call(this, [broken]);
  };
  try {
    await assert.rejects(decode.run(q_, cache_, { out: own }), { name: "KvasirError" });
    await assert.rejects(decode.run(q_, cache_, { out: own }), { name: "KvasirError" });
  } finally {
    GPUQueue.prototype.submit = submit;
  }
  await decode.run(q_, cache_, { out: own });
  assert.ok((await own.read()).some((x) => x !== 0));
}, ["webgpu", "webgpu, portable rung"]);

onEachBackend("planned decode: no memory for a plan is an error of its runs", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  using decode = new BatchDecodeWithPagedKvCache(device);
  const { createBuffer } = GPUDevice.prototype;
  // A GPU says later that it has no memory; a size that it refuses is said in the same way.
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const size = descriptor.label === "tables" ? 2 ** 52 : descriptor.size;
    return createBuffer.call(this, { ...descriptor, size });
  };
  try {
    decode.plan(PLAN);
  } finally {
    GPUDevice.prototype.createBuffer = createBuffer;
  }
  // A plan that comes before the answer has the same memory.
  decode.plan({ ...PLAN, smScale: 2 });
  for (let i = 0; i < 2; i++) {
    await assert.rejects(decode.run(q_, cache_), /KvasirError|OutOfMemoryError/);
  }
  decode.plan(PLAN);
  using fresh = new BatchDecodeWithPagedKvCache(device);
  fresh.plan(PLAN);
  assertSameBits(
    await read(decode.run(q_, cache_)),
    await read(fresh.run(q_, cache_)),
    "with memory again",
  );
}, ["webgpu", "webgpu, portable rung"]);

onEachBackend("planned decode: a long request takes two dispatches", async (device) => {
  const pages = 500;
  using q = device.tensor(normals(96, 1), [1, 6, 16], "float32");
  using cache = device.tensor(normals(pages * 512, 2), [pages, 2, 8, 2, 16], "float32");
  using decode = new BatchDecodeWithPagedKvCache(device);
  const indices = Array.from({ length: pages }, (_, i) => i);
  decode.plan({ ...PLAN, indptr: [0, pages], indices, lastPageLen: [8] });
  await (await decode.run(q, cache)).destroy();
  const { dispatchWorkgroups } = GPUComputePassEncoder.prototype;
  let dispatches = 0;
  GPUComputePassEncoder.prototype.dispatchWorkgroups = function (...grid) {
    dispatches++;
    return dispatchWorkgroups.apply(this, grid);
  };
  try {
    await read(decode.run(q, cache));
  } finally {
    GPUComputePassEncoder.prototype.dispatchWorkgroups = dispatchWorkgroups;
  }
  assert.equal(dispatches, 2, "the keys, and the merge of their parts");
}, ["webgpu", "webgpu, portable rung"]);

onEachBackend("planned calls: a longer request elsewhere leaves their turns", async (device) => {
  const { q, cache } = tensorsOn(device);
  using q_ = q, cache_ = cache;
  // A theta of its own, so that no test before has made a table for it.
  const rope = { posEncodingMode: "ROPE_LLAMA", ropeTheta: 7777 } as const;
  using decode = new BatchDecodeWithPagedKvCache(device);
  using prefill = new BatchPrefillWithPagedKvCache(device);
  const { indptr, indices, lastPageLen, ...sizes } = PLAN;
  decode.plan({ ...PLAN, ...rope });
  prefill.plan({
    ...sizes,
    ...rope,
    qoIndptr: [0, 2, 3, 4, 4, 5],
    pagedKvIndptr: indptr,
    pagedKvIndices: indices,
    pagedKvLastPageLen: lastPageLen,
  });
  using out = device.empty([BATCH, 6, 16], "float32");
  using rows = device.empty([BATCH, 6, 16], "float32");
  await decode.run(q_, cache_, { out });
  await prefill.run(q_, cache_, { out: rows });
  const [decoded, prefilled] = [await out.read(), await rows.read()];
  // What does not run leaves these results.
  using other = device.tensor(normals(BATCH * 96, 4), [BATCH, 6, 16], "float32");
  await decode.run(other, cache_, { out });
  await prefill.run(other, cache_, { out: rows });
  // Tables grow beyond 4096 positions.
  using longer = new BatchDecodeWithPagedKvCache(device);
  const pages = Array.from({ length: 600 }, (_, i) => i % PAGES);
  longer.plan({ ...sizes, ...rope, indptr: [0, 600], indices: pages, lastPageLen: [8] });
  using one = device.tensor(normals(96, 3), [1, 6, 16], "float32");
  (await longer.run(one, cache_)).destroy();
  // With the bind groups of before, and with new ones.
  await decode.run(q_, cache_, { out });
  await prefill.run(q_, cache_, { out: rows });
  assertSameBits(await out.read(), decoded, "decode");
  assertSameBits(await rows.read(), prefilled, "prefill");
  assertSameBits(await read(decode.run(q_, cache_)), decoded, "decode, new operands");
  assertSameBits(await read(prefill.run(q_, cache_) as Promise<Tensor>), prefilled, "prefill, new");
});
