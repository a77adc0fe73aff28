/** What a step of planned decode asks of the GPU, when it does, and what it leaves behind. */

import assert from "node:assert/strict";
import v8 from "node:v8";
import vm from "node:vm";
import { BatchDecodeWithPagedKvCache, type Device, type Tensor } from "@kvasir/attention";
import { type BackendName, onEachBackend } from "../support/device.ts";

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
const ON_GPU: readonly BackendName[] = ["webgpu", "webgpu, portable rung"];

/** Calls by name, each on its interface. */
const CALLS = {
  createBuffer: () => GPUDevice,
  createBindGroup: () => GPUDevice,
  createCommandEncoder: () => GPUDevice,
  pushErrorScope: () => GPUDevice,
  beginComputePass: () => GPUCommandEncoder,
  finish: () => GPUCommandEncoder,
  dispatchWorkgroups: () => GPUComputePassEncoder,
  writeBuffer: () => GPUQueue,
  submit: () => GPUQueue,
};

/** The calls of WebGPU that `work` makes until it settles, and their numbers. */
async function callsOf(work: () => unknown): Promise<Record<string, number>> {
  using spies = spyOnCalls();
  await work();
  return spies.made;
}

/** Counts calls of WebGPU until it is disposed of. */
function spyOnCalls() {
  const made: Record<string, number> = {};
  const undo: (() => void)[] = [];
  for (const [name, of] of Object.entries(CALLS)) {
    const { prototype } = of() as unknown as { prototype: Record<string, unknown> };
    const call = prototype[name] as (...args: unknown[]) => unknown;
    prototype[name] = function (...args: unknown[]) {
      made[name] = (made[name] ?? 0) + 1;
      return call.apply(this, args);
    };
    undo.push(() => prototype[name] = call);
  }
  return {
    made,
    [Symbol.dispose]() {
      for (const restore of undo) restore();
    },
  };
}

/** A planned decode that has run, with its tensors. */
async function steady(device: Device) {
  const q = device.empty([5, 6, 16], "float32");
  const cache = device.empty([13, 2, 8, 2, 16], "float32");
  const out = device.empty([5, 6, 16], "float32");
  const decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan(PLAN);
  await decode.run(q, cache, { out });
  const tensors: readonly Tensor[] = [q, cache, out];
  return {
    decode,
    run: () => decode.run(q, cache, { out }),
    [Symbol.dispose]() {
      decode.destroy();
      for (const tensor of tensors) tensor.destroy();
    },
  };
}

const RUN = {
  createCommandEncoder: 1,
  beginComputePass: 1,
  dispatchWorkgroups: 1,
  finish: 1,
  submit: 1,
};

onEachBackend("a step is one write and one submission, and makes no buffers", async (device) => {
  using step = await steady(device);
  const { decode } = step;
  assert.deepEqual(await callsOf(step.run), RUN, "a run");
  for (let i = 0; i < 20; i++) {
    const update = () => decode.updateLastPageLen([1 + i % 8, 1, 8, 0, 5]);
    assert.deepEqual(await callsOf(update), { writeBuffer: 1 }, `update ${i}`);
    assert.deepEqual(await callsOf(step.run), RUN, `run ${i}`);
  }
}, ON_GPU);

onEachBackend("a new plan writes what has changed, and keeps the bind groups", async (device) => {
  using step = await steady(device);
  const { decode } = step;
  const plan = (changes: object) => callsOf(() => decode.plan({ ...PLAN, ...changes }));
  assert.deepEqual(await plan({}), {}, "the same");
  assert.deepEqual(await plan({ lastPageLen: [4, 1, 8, 0, 5] }), { writeBuffer: 1 }, "tables");
  const indices = PLAN.indices.toReversed();
  assert.deepEqual(await plan({ indices }), { writeBuffer: 2 }, "pages, and tables again");
  assert.deepEqual(await callsOf(step.run), RUN, "its run");
  const fewer = { indptr: [0, 3, 4, 7, 7, 9], indices: indices.slice(2) };
  assert.deepEqual(await plan(fewer), { writeBuffer: 2 }, "fewer pages");
  assert.deepEqual(await callsOf(step.run), RUN, "its run");
  // A table that grows beyond its buffer takes another.
  const more = { indptr: [0, 3, 4, 9, 9, 30], indices: PLAN.indices.concat(new Array(19).fill(3)) };
  assert.deepEqual(
    await plan(more),
    { createBuffer: 1, pushErrorScope: 2, writeBuffer: 2 },
    "more",
  );
  assert.equal((await callsOf(step.run)).createBindGroup, 1);
  assert.deepEqual(await callsOf(step.run), RUN, "its next run");
  // Other kernels have bind groups of their own.
  await plan({ logitsSoftCap: 3 });
  assert.equal((await callsOf(step.run)).createBindGroup, 1);
}, ON_GPU);

onEachBackend(
  "runs whose kernels are there are submitted in the order of calls",
  async (device) => {
    using step = await steady(device);
    using spies = spyOnCalls();
    const runs = [step.run(), step.run()];
    assert.equal(spies.made.submit, 2, "submitted when the calls return");
    await Promise.all(runs);
  },
  ON_GPU,
);

onEachBackend("many steps leave nothing on the heap", async (device) => {
  v8.setFlagsFromString("--expose-gc");
  const collect: () => void = vm.runInNewContext("gc");
  using step = await steady(device);
  const { decode } = step;
  /** Bytes in use after so many steps, each plan of which has other pages. */
  const heapAfter = async (steps: number) => {
    for (let i = 0; i < steps; i++) {
      if (i % 8 === 0) {
        decode.plan({
          ...PLAN,
          indices: PLAN.indices.map((page) => (page + i) % 13),
        });
      } else decode.updateLastPageLen([1 + i % 8, 1, 8, 0, 5]);
      await step.run();
    }
    // Garbage that a task still holds is let go.
    await new Promise((resolve) => setTimeout(resolve, 0));
    collect();
    return Deno.memoryUsage().heapUsed;
  };
  const steps = 1500;
  let before = await heapAfter(steps);
  // What V8 compiles and learns meanwhile is no leak: one of the rounds adds less than 40 bytes a step.
  const added: number[] = [];
  for (let round = 0; round < 4; round++) {
    const after = await heapAfter(steps);
    added.push((after - before) / steps);
    before = after;
  }
  assert.ok(Math.min(...added) < 40, `bytes that each step adds, by rounds: ${added}`);
  assert.equal(device.report.memory.tensors, 3);
});
