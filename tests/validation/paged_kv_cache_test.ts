/** Every misuse of a paged cache gets its typed error, and changes nothing. */

import assert from "node:assert/strict";
import { PagedKvCache } from "@kvasir/attention";
import { onEachBackend } from "../support/device.ts";
import { assertFails } from "../support/failures.ts";

const CACHE = { numPages: 5, pageSize: 4, numKvHeads: 3, headDim: 8, dtype: "float16" } as const;

onEachBackend("a paged cache refuses what does not fit, and changes nothing", async (device) => {
  const create = (change: object) => () => PagedKvCache.create(device, { ...CACHE, ...change });
  for (const name of ["numPages", "pageSize", "numKvHeads", "headDim", "headDimV", "numLayers"]) {
    for (const value of [0, -1, 1.5, NaN, "4", {}]) {
      const label = `${name} ${value}`;
      await assertFails(label, create({ [name]: value }), "OptionError", `options.${name}`);
    }
  }
  for (const kScale of [0, -1, NaN, "1", [1, 1], [1, 1, 0]]) {
    await assert.rejects(async () => await create({ kScale })(), { name: "OptionError" });
  }
  await assertFails("dtype", create({ dtype: "int8" }), "OptionError", "options.dtype");
  await assertFails("a name", create({ pages: 1 }), "OptionError", "options.pages");
  await assertFails(
    "device",
    () => PagedKvCache.create(null as never, CACHE),
    "OptionError",
    "device",
  );
  // Kernels of the GPU go by steps of 8 dims: better said before a cache is filled.
  for (const name of device.backend === "webgpu" ? ["headDim", "headDimV"] : []) {
    await assertFails(
      name,
      create({ [name]: 12 }),
      "LimitError",
      `options.${name}`,
      /multiple of 8/,
    );
  }
  assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 });

  using cache = PagedKvCache.create(device, { ...CACHE, numLayers: 2 });
  const sequence = cache.createSequence();
  using rows = device.empty([3, 3, 8], "float32");
  using fp8 = device.empty([3, 3, 8], "float8_e4m3fn");
  using two = device.empty([2, 3, 8], "float32");
  using wide = device.empty([3, 3, 16], "float32");
  const append = (layer: number, k = rows, v = rows, options = {}) => () =>
    cache.append(layer, k, v, options);
  await assertFails("no reservation", append(0), "PlanError", "append", /no reservation/);
  await assertFails("undo", () => cache.undoReserve(), "PlanError", "undoReserve");
  await cache.reserve([{ sequence, tokens: 3 }]);
  const before = cache.statistics();
  const waits = [
    () => cache.reserve([{ sequence, tokens: 1 }]),
    () => cache.toBytes(sequence),
    () => cache.fromBytes(new Uint8Array(60)),
  ];
  for (const work of waits) {
    await assert.rejects(async () => await work(), /layer 0 has not got/);
  }
  for (const layer of [-1, 2, 0.5, "0", null]) {
    await assertFails(`layer ${layer}`, append(layer as number), "OptionError", "layer");
    await assertFails(`layer ${layer}`, () => cache.layer(layer as number), "OptionError", "layer");
  }
  await assertFails("too few", append(0, two, two), "PlanError", "append", /2 rows, expected 3/);
  await assertFails("too wide", append(0, wide, wide), "ShapeError", "appendKey");
  await assertFails("FP8 rows", append(0, fp8, fp8), "DTypeError", "appendKey");
  await assertFails(
    "rope",
    append(0, rows, rows, { posEncodingMode: "ALIBI" }),
    "OptionError",
    "options.posEncodingMode",
  );
  await assertFails(
    "an option",
    append(0, rows, rows, { kScale: 2 }),
    "OptionError",
    "options.kScale",
  );
  await append(0)();
  await assertFails("twice", append(0), "PlanError", "append", /has its rows already/);
  await append(1)();
  await assertFails("after all", append(1), "PlanError", "append", /no reservation/);
  assert.deepEqual(cache.statistics(), before);

  using stranger = PagedKvCache.create(device, CACHE);
  const foreign = stranger.createSequence();
  const uses = (value: unknown): readonly (() => unknown)[] => [
    () => cache.fork(value as never),
    () => cache.truncate(value as never, 0),
    () => cache.free(value as never),
    () => cache.tables([value as never]),
    () => cache.toBytes(value as never),
    () => cache.reserve([{ sequence: value as never, tokens: 1 }]),
  ];
  for (const value of [null, undefined, 1, {}, [], foreign, { length: 3 }]) {
    for (const use of uses(value)) {
      await assert.rejects(async () => await use(), { name: "OptionError" }, `${value} ${use}`);
    }
  }
  for (
    const appends of [null, 5, [null], [{}], [{ sequence, tokens: -1 }], [{
      sequence,
      tokens: 1.5,
    }]]
  ) {
    await assert.rejects(cache.reserve(appends as never), { name: "OptionError" });
  }
  const freed = cache.createSequence();
  cache.free(freed);
  for (const use of uses(freed)) {
    await assert.rejects(async () => await use(), { name: "DestroyedError" }, `freed ${use}`);
  }
  assert.throws(() => cache.truncate(sequence, 4), { name: "OptionError" });
  assert.deepEqual(cache.statistics(), before);
  cache.destroy();
  for (const use of [...uses(sequence), () => cache.createSequence(), () => cache.statistics()]) {
    await assert.rejects(async () => await use(), { name: "DestroyedError" }, `destroyed ${use}`);
  }
}, ["wasm", "webgpu"]);
