/** The paged cache while calls overlap, fail or are given up: rows are never another's. */

import assert from "node:assert/strict";
import { type Device, PagedKvCache } from "@kvasir/attention";
import type { Backend } from "../../src/backend.ts";
import type { KvasirDevice } from "../../src/device.ts";
import { type CacheSpec, ModelCache } from "../support/cache.ts";
import { onEachBackend } from "../support/device.ts";
import { assertFails } from "../support/failures.ts";

const SPEC = {
  numPages: 4,
  pageSize: 4,
  numKvHeads: 2,
  headDim: 8,
  dtype: "float16",
} as const satisfies CacheSpec;

const rows = (device: Device, tokens: number, value = 1) =>
  device.tensor(new Float32Array(tokens * 16).fill(value), [tokens, 2, 8], "float16");

/** Runs `work` while a method of the device's backend fails. */
async function withFailing(
  device: Device,
  method: "append" | "copyParts",
  work: () => Promise<void>,
): Promise<void> {
  const engine = (device as KvasirDevice).engine as Backend;
  const own = Object.getOwnPropertyDescriptor(engine, method);
  engine[method] = () => Promise.reject(new Error("the device failed"));
  try {
    await work();
  } finally {
    if (own) Object.defineProperty(engine, method, own);
    else delete (engine as Partial<Backend>)[method];
  }
}

onEachBackend("a cache in flight: what is saved is of one time", async (device) => {
  const model = new ModelCache(device, { ...SPEC, numPages: 2, numLayers: 3 });
  using cache = model.cache;
  const a = model.create();
  await model.append([[a, 8]]);
  const expected = await cache.toBytes(a.handle);
  const [saving, again] = [cache.toBytes(a.handle), cache.toBytes(a.handle)];
  model.free(a);
  await model.append([[model.create(), 8]]); // in the same two pages
  assert.deepEqual(await saving, expected);
  assert.deepEqual(await again, expected);
  await model.check("after all");
  // Restoring takes pages, too.
  const other = cache.toBytes(model.sequences[0].handle);
  const now = await cache.toBytes(model.sequences[0].handle);
  model.free(model.sequences[0]);
  await cache.fromBytes(expected);
  assert.deepEqual(await other, now);
});

onEachBackend("a cache in flight: a save waits for rows that are being written", async (device) => {
  using cache = PagedKvCache.create(device, SPEC);
  const sequence = cache.createSequence();
  using one = rows(device, 1);
  await cache.reserve([{ sequence, tokens: 1 }]);
  const writing = cache.append(0, one, one);
  const saved = await cache.toBytes(sequence);
  await writing;
  assert.deepEqual(saved, await cache.toBytes(sequence));
});

onEachBackend("a cache in flight: a request that is given up", async (device) => {
  for (const giveUp of ["free", "truncate", "fork"] as const) {
    const model = new ModelCache(device, SPEC);
    using cache = model.cache;
    const [a, b] = [model.create(), model.create()];
    await model.append([[a, 2], [b, 3]]);
    await cache.reserve([{ sequence: a.handle, tokens: 3 }, { sequence: b.handle, tokens: 1 }]);
    if (giveUp === "free") model.free(a);
    else if (giveUp === "truncate") model.truncate(a, 1);
    else cache.free(cache.fork(a.handle));
    cache.undoReserve();
    const lengths = model.sequences.map(({ handle }) => handle.length);
    assert.deepEqual(lengths, { free: [3], truncate: [1, 3], fork: [2, 3] }[giveUp]);
    await model.append([[b, 2]]);
    await model.check(giveUp);
    for (const sequence of [...model.sequences]) model.free(sequence);
    assert.equal(cache.statistics().usedPages, 0, giveUp);
  }
});

onEachBackend("a cache in flight: pages that could not be copied", async (device) => {
  const model = new ModelCache(device, SPEC);
  using cache = model.cache;
  const a = model.create();
  await model.append([[a, 2]]);
  const b = model.fork(a);
  const before = cache.statistics();
  await withFailing(device, "copyParts", async () => {
    const appends = [{ sequence: b.handle, tokens: 1 }];
    await assert.rejects(cache.reserve(appends), /the device failed/);
    assert.deepEqual(cache.statistics(), before);
    // The same where the table changes meanwhile.
    const reserving = cache.reserve(appends);
    model.fork(a);
    await assert.rejects(reserving, /the device failed/);
  });
  await model.append([[b, 1]]);
  await model.check("after all");
});

onEachBackend("a cache in flight: pages change hands while others are copied", async (device) => {
  const model = new ModelCache(device, { ...SPEC, numPages: 6 });
  using _cache = model.cache;
  const [a, c] = [model.create(), model.create()];
  await model.append([[a, 3], [c, 6]]);
  const b = model.fork(a);
  const appending = model.append([[b, 2]]);
  model.free(c); // its pages are the next to be taken
  await appending;
  await model.append([[a, 1]]);
  await model.check("after all");
});

onEachBackend("a cache in flight: rows that could not be written come again", async (device) => {
  using cache = PagedKvCache.create(device, SPEC);
  const sequence = cache.createSequence();
  using one = rows(device, 1);
  await cache.reserve([{ sequence, tokens: 1 }]);
  await withFailing(device, "append", async () => {
    const writing = cache.append(0, one, one);
    await assertFails("twice", () => cache.append(0, one, one), "PlanError", "append");
    const next = cache.reserve([{ sequence, tokens: 1 }]);
    await assert.rejects(writing, /the device failed/);
    await assertFails("next", () => next, "PlanError", "reserve", /layer 0 has not got/);
  });
  await cache.append(0, one, one);
  assert.equal(sequence.length, 1);
  using twin = PagedKvCache.create(device, SPEC);
  const other = twin.createSequence();
  await twin.reserveAndAppend([{ sequence: other, tokens: 1 }], one, one);
  assert.deepEqual(await cache.toBytes(sequence), await twin.toBytes(other));
});

onEachBackend("reserveAndAppend does both, or nothing", async (device) => {
  using cache = PagedKvCache.create(device, SPEC);
  const [a, b] = [cache.createSequence(), cache.createSequence()];
  const appends = [{ sequence: a, tokens: 2 }, { sequence: b, tokens: 1 }];
  using three = rows(device, 3);
  using none = rows(device, 0);
  await cache.reserveAndAppend(appends, three, three);
  await cache.reserveAndAppend([], none, none);
  await cache.reserveAndAppend([{ sequence: a, tokens: 0 }], none, none);
  assert.deepEqual([a.length, b.length], [2, 1]);
  const before = cache.statistics();
  const both = (rows = three, options = {}) => () =>
    cache.reserveAndAppend(appends, rows, rows, options);
  await assertFails("rows", both(none), "PlanError", "append", /0 rows, expected 3/);
  await assertFails("option", both(three, { kScale: 1 }), "OptionError", "options.kScale");
  await assertFails(
    "no token",
    () => cache.reserveAndAppend([], three, three),
    "PlanError",
    "append",
    /3 rows, expected 0/,
  );
  await withFailing(device, "append", async () => {
    await assert.rejects(both(), /the device failed/);
  });
  assert.deepEqual(cache.statistics(), before);
  await cache.reserveAndAppend(appends, three, three);
  assert.deepEqual([a.length, b.length], [4, 2]);
  using layers = PagedKvCache.create(device, { ...SPEC, numLayers: 2 });
  const sequence = layers.createSequence();
  await assertFails(
    "layers",
    () => layers.reserveAndAppend([{ sequence, tokens: 3 }], three, three),
    "OptionError",
    "cache",
    /2 layers/,
  );
  assert.equal(sequence.length, 0);
});
