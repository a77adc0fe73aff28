/** What callers do to their tensors while a prefill runs, and what a failure leaves behind. */

import assert from "node:assert/strict";
import {
  batchPrefillWithPaddedKvCache,
  BatchPrefillWithRaggedKvCache,
  type Device,
  singlePrefillWithKvCache,
  type Tensor,
} from "@kvasir/attention";
import type { KvasirDevice } from "../../src/device.ts";
import { assertSameBits } from "../support/bits.ts";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertFails } from "../support/failures.ts";
import { normals } from "../support/values.ts";

// Lifetimes are kept outside of kernels: two backends say it all.
const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

/** 9 queries over 20 keys. */
function makeOperands(device: Device): [q: Tensor, k: Tensor, v: Tensor] {
  return [
    device.tensor(normals(9 * 96, 1), [9, 6, 16], "float32"),
    device.tensor(normals(20 * 32, 2), [20, 2, 16], "float32"),
    device.tensor(normals(20 * 32, 3), [20, 2, 16], "float32"),
  ];
}

async function readAndDestroy(tensor: Tensor): Promise<Float32Array> {
  const values = await tensor.read();
  tensor.destroy();
  return values;
}

function planned(device: Device): BatchPrefillWithRaggedKvCache {
  const prefill = new BatchPrefillWithRaggedKvCache(device);
  prefill.plan({
    qoIndptr: [0, 4, 9],
    kvIndptr: [0, 7, 20],
    numQoHeads: 6,
    numKvHeads: 2,
    headDim: 16,
    qDtype: "float32",
    kvDtype: "float32",
    causal: true,
  });
  return prefill;
}

onEachBackend("inputs of a prefill may be destroyed right after the call", async (device) => {
  const prefill = planned(device);
  const calls = [
    (...all: [Tensor, Tensor, Tensor]) => singlePrefillWithKvCache(...all, { causal: true }),
    (...all: [Tensor, Tensor, Tensor]) => prefill.run(...all),
  ];
  for (const call of calls) {
    const kept = makeOperands(device);
    const expected = await readAndDestroy(await call(...kept));
    const given = makeOperands(device);
    const pending = call(...given);
    for (const tensor of given) tensor.destroy();
    // Memory that is given away may be given to others at once.
    const others = [0, 1, 2].map((i) => device.tensor(normals(864, i), [864], "float32"));
    assertSameBits(await readAndDestroy(await pending), expected, "out");
    for (const tensor of [...others, ...kept]) tensor.destroy();
  }
}, BOTH);

onEachBackend("prefills may overlap, of one plan as well", async (device) => {
  const prefill = planned(device);
  const [q, k, v] = makeOperands(device);
  const expected = await readAndDestroy(await prefill.run(q, k, v));
  const pending = Array.from(
    { length: 12 },
    (_, i) => i % 2 ? prefill.run(q, k, v) : singlePrefillWithKvCache(q, k, v),
  );
  const answers = await Promise.all(pending.map(async (call) => await readAndDestroy(await call)));
  answers.forEach((answer, i) => {
    if (i % 2) assertSameBits(answer, expected, `run ${i}`);
    else assertSameBits(answer, answers[0], `call ${i}`);
  });
  for (const tensor of [q, k, v]) tensor.destroy();
}, BOTH);

onEachBackend(
  "a prefill that fails leaves no tensor, and the caller's own alive",
  async (device) => {
    const { engine } = device as KvasirDevice;
    const [q, k, v] = makeOperands(device);
    const out = device.empty([9, 6, 16], "float32");
    const lse = device.empty([9, 6], "float32");
    // Planned calls run what the engine has prepared for them.
    let isBroken = false;
    const broken = () => Promise.reject(new Error("broken on purpose"));
    const { prepare } = engine;
    engine.prepare = () => {
      const prepared = prepare.call(engine);
      const { begin } = prepared;
      prepared.begin = () => {
        const turn = begin.call(prepared);
        return isBroken ? { run: broken, end: turn.end } : turn;
      };
      return prepared;
    };
    const prefill = planned(device);
    Reflect.deleteProperty(engine, "prepare");
    const before = device.report.memory;
    const calls = [
      () => singlePrefillWithKvCache(q, k, v, { returnLse: true }),
      () => prefill.run(q, k, v, { returnLse: true }),
      () => prefill.run(q, k, v, { returnLse: true, out }),
      () => prefill.run(q, k, v, { returnLse: true, out, lse }),
    ];
    engine.attend = broken;
    isBroken = true;
    for (const call of calls) {
      await assert.rejects(call(), /broken on purpose/);
      assert.deepEqual(device.report.memory, before);
    }
    Reflect.deleteProperty(engine, "attend"); // the class's own again
    isBroken = false;
    // Results are allocated one after the other: the first must go when the second cannot be had.
    const { allocate } = engine;
    let left = 1;
    engine.allocate = (...all) => {
      if (left-- === 0) throw new Error("no memory on purpose");
      return allocate.apply(engine, all);
    };
    await assert.rejects(calls[0](), /no memory on purpose/);
    Reflect.deleteProperty(engine, "allocate");
    assert.deepEqual(device.report.memory, before);
    await prefill.run(q, k, v, { returnLse: true, out, lse });
    for (const tensor of [q, k, v, out, lse]) tensor.destroy();
  },
  BOTH,
);

onEachBackend("prefill refuses destroyed tensors by their names", async (device) => {
  const dead = device.empty([2, 9, 6, 16], "float32");
  dead.destroy();
  const q = device.empty([2, 9, 6, 16], "float32");
  const calls = [
    ["q", () => batchPrefillWithPaddedKvCache(dead, q, q)],
    ["k", () => batchPrefillWithPaddedKvCache(q, dead, q)],
    ["v", () => batchPrefillWithPaddedKvCache(q, q, dead)],
  ] as const;
  for (const [name, work] of calls) {
    await assertFails(name, work, "DestroyedError", name, /a destroyed tensor/);
  }
  q.destroy();
}, BOTH);
