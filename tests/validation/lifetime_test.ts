/** Lifetimes: destroying twice, too early and right after a call; devices that go away. */

import assert from "node:assert/strict";
import {
  batchDecodeWithPaddedKvCache,
  type Device,
  DeviceLostError,
  KvasirError,
  openDevice,
  singleDecodeWithKvCache,
  type Tensor,
} from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import {
  type BackendName,
  gpuTest,
  onEachBackend,
  openGpuDevice,
  openOn,
} from "../support/device.ts";
import { assertFails } from "../support/failures.ts";
import { normals } from "../support/values.ts";

const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

interface Operands {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

function makeOperands(device: Device): Operands {
  return {
    q: device.tensor(normals(2 * 4 * 32, 1), [2, 4, 32], "float32"),
    k: device.tensor(normals(2 * 30 * 2 * 32, 2), [2, 30, 2, 32], "float16"),
    v: device.tensor(normals(2 * 30 * 2 * 32, 3), [2, 30, 2, 32], "float16"),
  };
}

function destroyAll(...tensors: readonly Tensor[]) {
  for (const tensor of tensors) tensor.destroy();
}

async function readAndDestroy(tensor: Tensor): Promise<Float32Array> {
  const values = await tensor.read();
  tensor.destroy();
  return values;
}

onEachBackend("destroying a tensor twice is harmless", async (device) => {
  using kept = device.tensor([1, 2, 3], [3], "float32");
  const tensor = device.tensor([4, 5, 6], [3], "float32");
  assert.equal(device.report.memory.tensors, 2);
  tensor.destroy();
  tensor.destroy();
  tensor[Symbol.dispose]();
  assert.deepEqual(device.report.memory, { tensors: 1, bytes: 12 });
  assert.deepEqual([...await kept.read()], [1, 2, 3]);
}, BOTH);

onEachBackend("`using` frees a tensor at the end of its block", (device) => {
  {
    using tensor = device.empty([100], "float16");
    assert.equal(device.report.memory.bytes, 200);
    assert.equal(tensor.shape[0], 100);
  }
  assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 });
  return Promise.resolve();
}, BOTH);

onEachBackend("a destroyed tensor can no longer be used", async (device) => {
  const { q, k, v } = makeOperands(device);
  const dead = device.empty([2, 30, 2, 32], "float16");
  dead.destroy();
  const uses: readonly [string, () => unknown][] = [
    ["tensor", () => dead.read()],
    ["tensor", () => dead.readBytes()],
    ["buffer", () => dead.buffer],
    ["q", () => batchDecodeWithPaddedKvCache(dead, k, v)],
    ["k", () => batchDecodeWithPaddedKvCache(q, dead, v)],
    ["v", () => batchDecodeWithPaddedKvCache(q, k, dead)],
  ];
  for (const [subject, use] of uses.filter(([subject]) => subject !== "q")) {
    await assertFails(subject, use, "DestroyedError", subject, /got a destroyed tensor/);
  }
  q.destroy();
  const use = () => batchDecodeWithPaddedKvCache(q, k, v);
  await assertFails("q", use, "DestroyedError", "q", /got a destroyed tensor/);
  destroyAll(k, v);
}, BOTH);

onEachBackend("inputs may be destroyed right after the call", async (device) => {
  const kept = makeOperands(device);
  const options = { seqLens: [30, 7] };
  const expected = await readAndDestroy(
    await batchDecodeWithPaddedKvCache(kept.q, kept.k, kept.v, options),
  );
  const { q, k, v } = makeOperands(device);
  const call = batchDecodeWithPaddedKvCache(q, k, v, options);
  destroyAll(q, k, v);
  // Memory that is given away may be given to others at once.
  const others = [0, 1, 2].map((i) => device.tensor(normals(3840, i), [3840], "float16"));
  assertSameBits(await readAndDestroy(await call), expected, "out");
  destroyAll(...others, kept.q, kept.k, kept.v);
});

onEachBackend("a tensor may be destroyed while it is read", async (device) => {
  const tensor = device.tensor([1, 2, 3], [3], "float32");
  const reading = tensor.read();
  tensor.destroy();
  assert.deepEqual([...await reading], [1, 2, 3]);
});

onEachBackend("what is given to a call may change right after it", async (device) => {
  const { q, k, v } = makeOperands(device);
  const seqLens = [30, 7];
  const expected = await readAndDestroy(await batchDecodeWithPaddedKvCache(q, k, v, { seqLens }));
  const call = batchDecodeWithPaddedKvCache(q, k, v, { seqLens });
  seqLens.fill(0);
  assertSameBits(await readAndDestroy(await call), expected, "out");
  destroyAll(q, k, v);
});

onEachBackend("calls may overlap", async (device) => {
  const { q, k, v } = makeOperands(device);
  const lengths = Array.from({ length: 20 }, (_, i) => [i, 30 - i]);
  const alone: Float32Array[] = [];
  for (const seqLens of lengths) {
    alone.push(await readAndDestroy(await batchDecodeWithPaddedKvCache(q, k, v, { seqLens })));
  }
  const together = await Promise.all(
    lengths.map(async (seqLens) =>
      await readAndDestroy(await batchDecodeWithPaddedKvCache(q, k, v, { seqLens }))
    ),
  );
  together.forEach((out, i) => assertSameBits(out, alone[i], `call ${i}`));
  destroyAll(q, k, v);
});

onEachBackend("empty caches and empty batches are answered", async (device) => {
  for (const kvLayout of ["NHD", "HND"] as const) {
    using q = device.tensor(normals(2 * 4 * 32, 1), [2, 4, 32], "float16");
    using cache = device.empty(kvLayout === "NHD" ? [2, 0, 2, 32] : [2, 2, 0, 32], "float8_e4m3fn");
    const options = { kvLayout, returnLse: true } as const;
    const { out, lse } = await batchDecodeWithPaddedKvCache(q, cache, cache, options);
    assert.ok((await readAndDestroy(out)).every((x) => Object.is(x, 0)));
    assert.ok((await readAndDestroy(lse)).every((x) => x === -Infinity));
  }
  using q = device.empty([0, 4, 32], "float32");
  using cache = device.empty([0, 9, 2, 32], "float32");
  using out = await batchDecodeWithPaddedKvCache(q, cache, cache, { seqLens: [] });
  assert.deepEqual([out.shape, (await out.read()).length], [[0, 4, 32], 0]);
  using one = device.empty([4, 32], "float32");
  using none = device.empty([0, 2, 32], "float32");
  using zero = await singleDecodeWithKvCache(one, none, none);
  assert.ok((await zero.read()).every((x) => x === 0));
});

for (const name of BOTH) {
  onEachBackend("a destroyed device refuses, and takes its tensors along", async () => {
    const device = await openOn(name);
    const { q, k, v } = makeOperands(device);
    device.destroy();
    device.destroy();
    device[Symbol.dispose]();
    const uses: readonly [string, () => unknown][] = [
      ["device", () => device.tensor([1], [1], "float32")],
      ["device", () => device.tensorFromBytes(new Uint8Array(4), [1], "float32")],
      ["device", () => device.empty([1], "float32")],
      ["tensor", () => q.read()],
      ["q", () => batchDecodeWithPaddedKvCache(q, k, v)],
    ];
    for (const [subject, use] of uses) {
      await assertFails(subject, use, "DestroyedError", subject, /got a destroyed/);
    }
    destroyAll(q, k, v);
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 });
    assert.ok(await device.lost instanceof DeviceLostError);
  }, [name]);

  onEachBackend("a device may be destroyed during a call", async () => {
    const device = await openOn(name);
    const { q, k, v } = makeOperands(device);
    const call = batchDecodeWithPaddedKvCache(q, k, v);
    device.destroy();
    // Whether the call made it does not matter; that it ends, and how it fails, does.
    const end = await call.then(() => "done", (error) => error);
    assert.ok(end === "done" || end instanceof KvasirError, `${end}`);
  }, [name]);
}

gpuTest("a lost GPUDevice is a DeviceLostError everywhere", async () => {
  const gpuDevice = await openGpuDevice();
  const device = await openDevice({ gpuDevice });
  const { q, k, v } = makeOperands(device);
  gpuDevice.destroy();
  const error = await device.lost;
  assert.ok(error instanceof DeviceLostError);
  assert.equal(error.code, "KVASIR_DEVICE_LOST");
  const uses: readonly (() => unknown)[] = [
    () => q.read(),
    () => device.empty([1], "float32"),
    () => device.tensor([1], [1], "float32"),
    () => batchDecodeWithPaddedKvCache(q, k, v),
  ];
  for (const use of uses) await assertFails("lost", use, "DeviceLostError", "device", /new device/);
  destroyAll(q, k, v);
  device.destroy();
});
