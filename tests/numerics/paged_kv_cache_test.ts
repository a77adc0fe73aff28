/** The paged cache: its rows bit by bit, against a plain model of every sequence. */

import assert from "node:assert/strict";
import {
  BatchDecodeWithPagedKvCache,
  type DType,
  openDevice,
  PagedKvCache,
} from "@kvasir/attention";
import fc from "fast-check";
import { checkCacheOptions } from "../../src/cache_options.ts";
import { assertSameBits } from "../support/bits.ts";
import { type CacheSpec, ModelCache } from "../support/cache.ts";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { normals } from "../support/values.ts";

const SPEC = {
  numPages: 12,
  pageSize: 4,
  numKvHeads: 2,
  headDim: 8,
  dtype: "float16",
} as const satisfies CacheSpec;

const DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];

const SPECS: readonly CacheSpec[] = [
  ...DTYPES.map((dtype, i) => ({ ...SPEC, dtype, kvLayout: i % 2 ? "HND" : "NHD" } as const)),
  { ...SPEC, numLayers: 3, headDimV: 16 },
  { ...SPEC, numLayers: 2, headDimV: 16, kvLayout: "HND", dtype: "float8_e4m3fn" },
  { ...SPEC, pageSize: 1 },
  { ...SPEC, dtype: "float8_e4m3fn", kvScales: "token", numLayers: 2, headDimV: 16 },
  { ...SPEC, dtype: "float8_e5m2", kvScales: "token", kvLayout: "HND" },
];

onEachBackend("a paged cache: appends, forks, truncations, copies", async (device) => {
  for (const spec of SPECS) {
    const label = JSON.stringify(spec);
    const model = new ModelCache(device, { ...spec, numPages: 48 / spec.pageSize });
    using cache = model.cache;
    const [a, b] = [model.create(), model.create()];
    await model.append([[a, 6], [b, 1]]);
    await model.check(`${label}, two sequences`);
    const c = model.fork(a);
    await model.append([[a, 1], [c, 3]]);
    await model.check(`${label}, a fork that goes its own way`);
    const d = model.fork(b);
    model.free(b);
    await model.append([[d, 4]]);
    model.truncate(c, 5);
    await model.append([[c, 2], [a, 0]]);
    await model.copy(c);
    await model.check(`${label}, after all`);
    for (const sequence of [...model.sequences]) model.free(sequence);
    const { usedPages, sharedPages, usedBytes } = cache.statistics();
    assert.deepEqual([usedPages, sharedPages, usedBytes], [0, 0, 0], label);
  }
});

onEachBackend("a paged cache: out of memory, and nothing has changed", async (device) => {
  const model = new ModelCache(device, { ...SPEC, numPages: 3 });
  using cache = model.cache;
  const [a, b] = [model.create(), model.create()];
  await model.append([[a, 6]]);
  const c = model.fork(a);
  const before = cache.statistics();
  // The fork's last page would have to be copied, and b wants another.
  await assert.rejects(
    cache.reserve([{ sequence: c.handle, tokens: 1 }, { sequence: b.handle, tokens: 1 }]),
    (error: Error) =>
      error.name === "OutOfMemoryError" && /2 pages asked for.*at most 1/.test(error.message),
  );
  assert.deepEqual(cache.statistics(), before);
  await model.append([[c, 1]]);
  const bytes = await cache.toBytes(a.handle);
  await assert.rejects(cache.fromBytes(bytes), { name: "OutOfMemoryError" });
  await model.check("after all");
  assert.equal(cache.statistics().numSequences, 3);
});

onEachBackend("a paged cache: a reservation taken back leaves no trace", async (device) => {
  const model = new ModelCache(device, SPEC);
  using cache = model.cache;
  const a = model.create();
  await model.append([[a, 6]]);
  const b = model.fork(a);
  const before = cache.statistics();
  await cache.reserve([{ sequence: a.handle, tokens: 9 }, { sequence: b.handle, tokens: 1 }]);
  cache.undoReserve();
  assert.deepEqual(cache.statistics(), before);
  await model.append([[b, 2], [a, 1]]);
  await model.check("after all");
});

onEachBackend("a saved sequence goes to any cache of the same model", async (device) => {
  const from = new ModelCache(device, { ...SPEC, numLayers: 2, dtype: "bfloat16" });
  using first = from.cache;
  const sequence = from.create();
  await from.append([[sequence, 11]]);
  const bytes = await first.toBytes(sequence.handle);
  using other = await openDevice({ backend: "wasm" });
  for (const target of [device, other]) {
    for (const kvLayout of ["NHD", "HND"] as const) {
      for (const pageSize of [1, 5, 16]) {
        const sizes = { ...SPEC, dtype: "bfloat16", kvLayout, pageSize, numLayers: 2 } as const;
        using cache = PagedKvCache.create(target, sizes);
        const restored = await cache.fromBytes(bytes);
        assert.equal(restored.length, 11);
        assert.deepEqual(await cache.toBytes(restored), bytes, `${kvLayout}, ${pageSize}`);
      }
    }
  }
  for (const change of [{ numLayers: 1 }, { numKvHeads: 1 }, { headDim: 16 }, { headDimV: 16 }]) {
    using cache = PagedKvCache.create(device, {
      ...SPEC,
      numLayers: 2,
      dtype: "bfloat16",
      ...change,
    });
    await assert.rejects(cache.fromBytes(bytes), { name: "OptionError" }, JSON.stringify(change));
    assert.equal(cache.statistics().numSequences, 0);
  }
  using half = PagedKvCache.create(device, { ...SPEC, numLayers: 2 });
  await assert.rejects(half.fromBytes(bytes), { name: "DTypeError" });
  const changed = bytes.slice();
  changed[100] ^= 1;
  await assert.rejects(first.fromBytes(changed), { name: "OptionError" });
});

onEachBackend("a paged cache: attention over it is attention over its tables", async (device) => {
  using cache = PagedKvCache.create(device, {
    ...SPEC,
    dtype: "float32",
    kScale: 2,
    vScale: [1, 0.5],
  });
  const [a, b] = [cache.createSequence(), cache.createSequence()];
  const [keys, values] = [normals(15 * 16, 1), normals(15 * 16, 2)];
  // In two steps: a gets 9 tokens and 1, b 4 and 1.
  const part = (from: Float32Array, first: number, count: number) =>
    device.tensor(from.slice(first * 16, (first + count) * 16), [count, 2, 8], "float32");
  for (const [tokens, first] of [[[9, 4], 0], [[1, 1], 13]] as const) {
    await cache.reserve([{ sequence: a, tokens: tokens[0] }, { sequence: b, tokens: tokens[1] }]);
    using key = part(keys, first, tokens[0] + tokens[1]);
    using value = part(values, first, tokens[0] + tokens[1]);
    await cache.append(0, key, value, { posEncodingMode: "ROPE_LLAMA" });
  }
  const { indptr, indices, lastPageLen } = cache.tables([b, a]);
  assert.deepEqual([...lastPageLen], [1, 2]);
  using q = device.tensor(normals(2 * 32, 3), [2, 4, 8], "float32");
  using decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan({
    ...{ indptr, indices, lastPageLen },
    ...{
      numQoHeads: 4,
      numKvHeads: 2,
      headDim: 8,
      pageSize: 4,
      qDtype: "float32",
      kvDtype: "float32",
    },
    ...{ kScale: 2, vScale: [1, 0.5] },
  });
  using out = await decode.run(q, cache);
  // The same by a cache of our own, turned by appendPagedKvCache.
  const { appendPagedKvCache } = await import("@kvasir/attention");
  using plain = device.empty([12, 2, 4, 2, 8], "float32");
  const own = cache.tables([a, b]);
  using key = part(keys, 0, 15);
  using value = part(values, 0, 15);
  const batchIndices = [...new Array(9).fill(0), ...new Array(4).fill(1), 0, 1];
  const positions = [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 9, 4];
  await appendPagedKvCache(
    ...[
      key,
      value,
      batchIndices,
      positions,
      plain,
      own.indices,
      own.indptr,
      own.lastPageLen,
    ] as const,
    { posEncodingMode: "ROPE_LLAMA", kScale: 2, vScale: [1, 0.5] },
  );
  using expected = await decode.run(q, plain);
  assertSameBits(await out.read(), await expected.read(), "out");
  assertSameBits(await (cache.layer(0) as typeof plain).read(), await plain.read(), "pages");
});

onEachBackend("an FP8 cache takes half of what a float16 cache takes", async (device) => {
  const bytes = (dtype: DType) => {
    using cache = PagedKvCache.create(device, { ...SPEC, numLayers: 2, dtype });
    const { memory } = device.report;
    assert.equal(cache.statistics().bytes, memory.bytes);
    return memory.bytes;
  };
  assert.equal(2 * bytes("float8_e4m3fn"), bytes("float16"));
  const tensorBytes = (dtype: DType) => {
    using _ = device.empty([5, 2, 4, 3, 24], dtype);
    return device.report.memory.bytes;
  };
  assert.equal(tensorBytes("float8_e4m3fn"), 5 * 2 * 4 * 3 * 24);
  assert.equal(tensorBytes("float16"), 2 * 5 * 2 * 4 * 3 * 24);
  await Promise.resolve();
});

onEachBackend("scales of tokens take 4 bytes a row beside half of float16", async (device) => {
  for (const headDimV of [8, 64]) {
    for (const kvLayout of ["NHD", "HND"] as const) {
      const sizes = { ...SPEC, headDimV, kvLayout, numLayers: 3 };
      using half = PagedKvCache.create(device, { ...sizes, dtype: "float16" });
      const { bytes } = half.statistics();
      const before = device.report.memory.bytes;
      using cache = PagedKvCache.create(device, {
        ...sizes,
        dtype: "float8_e4m3fn",
        kvScales: "token",
      });
      // 3 layers of 12 pages of 4 tokens, each with 2 rows of k and 2 of v.
      const rows = 3 * 12 * 4 * 2 * 2;
      assert.equal(cache.statistics().bytes, bytes / 2 + 4 * rows);
      assert.equal(device.report.memory.bytes - before, bytes / 2 + 4 * rows);
      const sequence = cache.createSequence();
      await cache.reserve([{ sequence, tokens: 5 }]);
      assert.equal(cache.statistics().usedBytes, (bytes / 2 + 4 * rows) / 6, "2 of 12 pages");
    }
  }
});

onEachBackend("a saved sequence with scales of tokens goes where they are", async (device) => {
  const sizes = { ...SPEC, dtype: "float8_e4m3fn" } as const;
  const from = new ModelCache(device, { ...sizes, kvScales: "token" });
  using first = from.cache;
  const sequence = from.create();
  await from.append([[sequence, 11]]);
  const bytes = await first.toBytes(sequence.handle);
  for (const kvLayout of ["NHD", "HND"] as const) {
    for (const pageSize of [1, 5, 16]) {
      using cache = PagedKvCache.create(device, {
        ...sizes,
        kvLayout,
        pageSize,
        kvScales: "token",
      });
      const restored = await cache.fromBytes(bytes);
      assert.deepEqual(await cache.toBytes(restored), bytes, `${kvLayout}, ${pageSize}`);
    }
  }
  using plain = PagedKvCache.create(device, sizes);
  await assert.rejects(plain.fromBytes(bytes), /tokenScales true.*false, the cache's/);
});

onEachBackend("attention over a cache finds the scales of its tokens", async (device) => {
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    using cache = PagedKvCache.create(device, { ...SPEC, dtype, kvScales: "token", numLayers: 1 });
    using half = PagedKvCache.create(device, { ...SPEC, dtype: "float32" });
    // Tokens of very different sizes: one scale would not do.
    const rows = [1, 2].map((seed) =>
      normals(21 * 16, seed).map((x, i) =>
        x * (seed === 1 ? 1 : 2 ** (8 * (Math.floor(i / 16) % 5)))
      )
    );
    const [key, value] = rows.map((row) => device.tensor(row, [21, 2, 8], "float32"));
    using _key = key;
    using _value = value;
    using q = device.tensor(normals(32, 3), [1, 4, 8], "float32");
    const answers: Float32Array[] = [];
    for (const [one, kvScales] of [[cache, "token"], [half, "none"]] as const) {
      const sequence = one.createSequence();
      await one.reserveAndAppend([{ sequence, tokens: 21 }], key, value);
      const kvDtype = one === cache ? dtype : "float32";
      const sizes = { numQoHeads: 4, numKvHeads: 2, headDim: 8, pageSize: 4 } as const;
      using decode = new BatchDecodeWithPagedKvCache(device);
      decode.plan({ ...one.tables([sequence]), ...sizes, qDtype: "float32", kvDtype, kvScales });
      using out = await decode.run(q, one);
      answers.push(await out.read());
      if (one !== cache) continue;
      using apart = await decode.run(q, cache.layer(0), { kvScales: cache.scales(0)! });
      assertSameBits(await apart.read(), answers[0], "layer and scales apart");
    }
    const [got, expected] = answers;
    const size = Math.max(...expected.map(Math.abs));
    const most = Math.max(...got.map((x, i) => Math.abs(x - expected[i])));
    assert.ok(most < size * (dtype === "float8_e4m3fn" ? 0.1 : 0.2), `${most} of ${size}`);
  }
});

/** What may be done next; numbers choose among the sequences. */
const operation = fc.oneof(
  { weight: 3, arbitrary: fc.constant(["create", 0, 0] as const) },
  { weight: 8, arbitrary: fc.tuple(fc.constant("append" as const), fc.nat(), fc.nat({ max: 9 })) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("fork" as const), fc.nat(), fc.constant(0)) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("truncate" as const), fc.nat(), fc.nat()) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("free" as const), fc.nat(), fc.constant(0)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("copy" as const), fc.nat(), fc.constant(0)) },
);
const RUNS: Readonly<Record<BackendName, readonly [runs: number, operations: number]>> = {
  "wasm": [400, 60],
  "webgpu": [3, 12],
  "webgpu, portable rung": [1, 12],
};

onEachBackend("a paged cache: any order of operations", async (device, name) => {
  const [numRuns, maxLength] = RUNS[name];
  const property = fc.asyncProperty(
    fc.constantFrom(...SPECS),
    fc.array(operation, { minLength: 5, maxLength }),
    async (spec, operations) => {
      const model = new ModelCache(device, { ...spec, numPages: 10 });
      using cache = model.cache;
      for (const [kind, chosen, number] of operations) {
        const sequence = model.sequences[chosen % Math.max(1, model.sequences.length)];
        if (kind === "create" || !sequence) {
          model.create();
          continue;
        }
        const before = cache.statistics();
        try {
          if (kind === "append") {
            const other = model.sequences[(chosen + 1) % model.sequences.length];
            await model.append(
              other === sequence ? [[sequence, number]] : [[sequence, number], [other, number % 2]],
            );
          } else if (kind === "fork") model.fork(sequence);
          else if (kind === "truncate") {
            model.truncate(sequence, number % (sequence.rows[0].length + 1));
          } else if (kind === "free") model.free(sequence);
          else await model.copy(sequence);
        } catch (error) {
          assert.equal((error as Error).name, "OutOfMemoryError");
          assert.deepEqual(cache.statistics(), before);
        }
      }
      await model.check("at the end");
      for (const sequence of [...model.sequences]) model.free(sequence);
      assert.equal(cache.statistics().usedPages, 0);
    },
  );
  await fc.assert(property, { numRuns });
});

Deno.test("a paged cache is a pair of tensors where kernels could not see one", () => {
  const shapes = (bindingBytes: number) =>
    checkCacheOptions(SPEC, bindingBytes).tensors.map(({ shape }) => [...shape]);
  // 12 pages of 4 tokens, 2 heads of 8, k and v in float16.
  assert.deepEqual(shapes(3072), [[12, 2, 4, 2, 8]]);
  assert.deepEqual(shapes(3071), [[12, 4, 2, 8], [12, 4, 2, 8]]);
});
