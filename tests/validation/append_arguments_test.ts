/** Appends and conversions that do not fit: each is refused by its typed error, and changes nothing. */

import assert from "node:assert/strict";
import {
  appendPagedKvCache,
  dequantize,
  type Device,
  type DType,
  KvasirError,
  openDevice,
  type PagedKv,
  quantize,
  type Tensor,
} from "@kvasir/attention";
import fc from "fast-check";
import { type BackendName, gpuTest, onEachBackend, openGpuDevice } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";
import { countWork, noNumber, noWord } from "../support/malformed.ts";

const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

/** An append of 3 tokens to two requests: 6 pages of 4 tokens, 2 heads of 8. */
const GOOD = {
  key: [3, 2, 8] as readonly number[],
  value: [3, 2, 8] as readonly number[],
  cache: [6, 2, 4, 2, 8] as readonly number[],
  keyDtype: "float16" as DType,
  valueDtype: "float16" as DType,
  cacheDtype: "float8_e4m3fn" as DType,
  batchIndices: [0, 0, 1] as unknown,
  positions: [4, 5, 0] as unknown,
  indices: [5, 2, 0] as unknown,
  indptr: [0, 2, 3] as unknown,
  lastPageLen: [2, 1] as unknown,
  options: {} as unknown,
};
type Arguments = typeof GOOD;

/** Appends on tensors of its own; the cache holds 1s and must hold them after. */
async function append(device: Device, change: Partial<Arguments>): Promise<void> {
  const a = { ...GOOD, ...change };
  using key = device.empty(a.key, a.keyDtype);
  using value = device.empty(a.value, a.valueDtype);
  const ones = new Uint8Array(a.cache.reduce((x, dim) => x * dim, 1)).fill(0x38);
  using cache = device.tensorFromBytes(ones, a.cache, a.cacheDtype);
  try {
    await call(key, value, cache, a);
  } finally {
    const hasChanged = (await cache.readBytes()).some((byte) => byte !== 0x38);
    if (hasChanged) assert.equal(Object.keys(change).length, 0, "a refused append has written");
  }
}

function call(key: Tensor, value: Tensor, cache: PagedKv, a: Arguments): Promise<void> {
  const { batchIndices, positions, indices, indptr, lastPageLen, options } = a;
  const lists = [batchIndices, positions, indices, indptr, lastPageLen] as ArrayLike<number>[];
  return appendPagedKvCache(
    key,
    value,
    lists[0],
    lists[1],
    cache,
    lists[2],
    lists[3],
    lists[4],
    options as object,
  );
}

const BAD: readonly (readonly [Partial<Arguments>, ErrorKind, string, RegExp])[] = [
  [{ key: [3, 16] }, "ShapeError", "appendKey", /expected \[nnz, 2, 8\]/],
  [{ key: [3, 3, 8] }, "ShapeError", "appendKey", /look at kvLayout/],
  [{ key: [3, 2, 16] }, "ShapeError", "appendKey", /got shape \[3, 2, 16\]/],
  [{ value: [2, 2, 8] }, "ShapeError", "appendValue", /appendKey's shape, \[3, 2, 8\]/],
  [{ value: [3, 2, 16] }, "ShapeError", "appendValue", /expected \[nnz, 2, 8\]/],
  [{ keyDtype: "float8_e5m2" }, "DTypeError", "appendKey", /float32, float16 or bfloat16/],
  [{ valueDtype: "bfloat16" }, "DTypeError", "appendValue", /appendKey's dtype, float16/],
  [{ cache: [6, 4, 2, 8] }, "ShapeError", "kvCache", /5 dims, \[pages, 2, pageSize, Hkv, D\]/],
  [{ cache: [6, 3, 4, 2, 8] }, "ShapeError", "kvCache", /got 3 in the second dim/],
  [{ cache: [6, 2, 0, 2, 8] }, "ShapeError", "kvCache", /a page size, heads and a head dim/],
  [{ options: { kvLayout: "HND" } }, "ShapeError", "appendKey", /expected \[nnz, 4, 8\]/],
  [{ batchIndices: [0, 0] }, "OptionError", "batchIndices", /got 2 numbers, expected 3/],
  [{ batchIndices: [0, 2, 1] }, "OptionError", "batchIndices[1]", /from 0 to 1/],
  [{ batchIndices: [0, -1, 1] }, "OptionError", "batchIndices[1]", /got -1/],
  [{ positions: [4, 5, 0, 0] }, "OptionError", "positions", /one for each token of appendKey/],
  [{ positions: [4, 6, 0] }, "OptionError", "positions[1]", /of request 0, .* from 0 to 5/],
  [{ positions: [4, 5, 1] }, "OptionError", "positions[2]", /of request 1, .* from 0 to 0/],
  [{ positions: [4, 5, 0.5] }, "OptionError", "positions[2]", /got 0.5/],
  [{ indices: [5, 6, 0] }, "OptionError", "kvIndices[1]", /page 6 for request 0/],
  [{ indices: [5, 2] }, "OptionError", "kvIndices", /where kvIndptr ends/],
  [{ indptr: [0, 3, 2] }, "OptionError", "kvIndptr[2]", /for the end of request 1/],
  [{ lastPageLen: [2, 0] }, "OptionError", "kvLastPageLen[1]", /for request 1, .* from 1 to 4/],
  [{ lastPageLen: [5, 1] }, "OptionError", "kvLastPageLen[0]", /for request 0/],
  [
    { indptr: [0, 3, 3], lastPageLen: [2, 0] },
    "OptionError",
    "positions[2]",
    /the request has no pages/,
  ],
  [{ options: null }, "OptionError", "options", /expected an object/],
  [{ options: { kvlayout: "NHD" } }, "OptionError", "options.kvlayout", /does not know/],
  [{ options: { kScale: 0 } }, "OptionError", "options.kScale", /above 0/],
  [{ options: { kScale: [1, -1] } }, "OptionError", "options.kScale[1]", /got -1/],
  [{ options: { vScale: [1, 1, 1] } }, "OptionError", "options.vScale", /for each of the KV heads/],
  [{ options: { vScale: 1e38 } }, "OptionError", "options.vScale", /at most 2\^126/],
  [{ options: { posEncodingMode: "ALIBI" } }, "OptionError", "options.posEncodingMode", /NONE/],
  [{ options: { ropeTheta: -1 } }, "OptionError", "options.ropeTheta", /above 0/],
  [{ options: { ropeScale: 0 } }, "OptionError", "options.ropeScale", /above 0/],
];

onEachBackend(
  "appendPagedKvCache() refuses what does not fit, and writes nothing",
  async (device) => {
    for (const [change, kind, subject, message] of BAD) {
      const work = () => append(device, change);
      await assertFails(JSON.stringify(change), work, kind, subject, message);
      assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 });
    }
    await append(device, {}); // the good one
  },
  BOTH,
);

onEachBackend("appendPagedKvCache() refuses caches that are none", async (device) => {
  using key = device.empty(GOOD.key, "float16");
  using k = device.empty([6, 4, 2, 8], "float8_e4m3fn");
  using v = device.empty([6, 4, 2, 16], "float8_e4m3fn");
  using short = device.empty([5, 4, 2, 8], "float8_e4m3fn");
  using foreigner = await openDevice({ backend: "wasm" });
  using foreign = foreigner.empty([6, 4, 2, 8], "float8_e4m3fn");
  const cases: [unknown, ErrorKind, string, RegExp][] = [
    [[k], "OptionError", "kvCache", /an array of 1, expected one tensor, or a pair/],
    [[k, k], "OptionError", "kvCache", /the same tensor twice/],
    [[k, 5], "OptionError", "kvCache[1]", /expected a tensor/],
    [undefined, "OptionError", "kvCache", /expected a tensor/],
    [[k, short], "ShapeError", "kvCache[1]", /kvCache\[0\]'s shape/],
    [[k, v], "ShapeError", "appendValue", /expected \[nnz, 2, 16\]/],
    [[k, foreign], "DeviceMismatchError", "kvCache[1]", /another device/],
  ];
  for (const [cache, kind, subject, message] of cases) {
    const work = () => call(key, key, cache as PagedKv, GOOD);
    await assertFails(subject, work, kind, subject, message);
  }
  const gone = device.empty(GOOD.cache, "float16");
  gone.destroy();
  await assertFails("destroyed", () => call(key, key, gone, GOOD), "DestroyedError", "kvCache");
}, BOTH);

onEachBackend("appendPagedKvCache() wants even head dims for rotary encoding", async (device) => {
  using key = device.empty([1, 1, 7], "float16");
  using cache = device.empty([1, 2, 1, 1, 7], "float16");
  const work = () =>
    appendPagedKvCache(key, key, [0], [0], cache, [0], [0, 1], [1], {
      posEncodingMode: "ROPE_LLAMA",
    });
  await assertFails("odd", work, "OptionError", "options.posEncodingMode", /an even head dim/);
}, BOTH);

gpuTest("appendPagedKvCache() refuses a cache in the buffer of what is appended", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const buffer = gpuDevice.createBuffer({ size: 4096, usage: STORAGE | COPY_SRC | COPY_DST });
  using key = device.tensorFromBuffer(buffer, GOOD.key, "float16");
  using cache = device.tensorFromBuffer(buffer, GOOD.cache, "float8_e4m3fn", 1024);
  using k = device.tensorFromBuffer(buffer, [6, 4, 2, 8], "float8_e4m3fn", 1024);
  using v = device.tensorFromBuffer(buffer, [6, 4, 2, 8], "float8_e4m3fn", 1280);
  using rows = device.empty(GOOD.key, "float16");
  const joined = () => call(key, rows, cache, GOOD);
  await assertFails("rows", joined, "OptionError", "kvCache", /the buffer of appendKey/);
  const pair = () => call(rows, rows, [k, v], GOOD);
  await assertFails("pair", pair, "OptionError", "kvCache[1]", /the buffer of kvCache\[0\]/);
  buffer.destroy();
});

const badArrays = (good: readonly number[], most: number) =>
  fc.oneof(
    fc.array(fc.integer({ min: 0, max: most }), { maxLength: 6 })
      .filter((list) => list.length !== good.length),
    fc.tuple(fc.nat(), fc.constantFrom<unknown>(-1, most + 1, 0.5, NaN, "0", null, 2 ** 32, 1n))
      .map(([at, value]) => (good as unknown[]).with(at % good.length, value)),
    fc.constantFrom<unknown>(null, undefined, 5, "001", {}, new DataView(new ArrayBuffer(12))),
  );
const noScale = fc.oneof(noNumber, fc.constantFrom(0, -1, 1e38, [1], [1, 0], [1, 1, 1], ["1", 1]));
const malformed: fc.Arbitrary<Partial<Arguments>> = fc.oneof(
  fc.record({ batchIndices: badArrays([0, 0, 1], 1) }),
  fc.record({ positions: badArrays([4, 5, 0], 5) }),
  fc.record({ indices: badArrays([5, 2, 0], 5) }),
  fc.record({ indptr: badArrays([0, 2, 3], 3) }),
  fc.record({ lastPageLen: badArrays([2, 1], 4) }),
  fc.record({ options: fc.record({ kScale: noScale }) }),
  fc.record({ options: fc.record({ vScale: noScale }) }),
  fc.record({ options: fc.record({ kvLayout: noWord }) }),
  fc.record({ options: fc.record({ posEncodingMode: noWord }) }),
  fc.record({ options: fc.record({ ropeScale: noNumber.filter((x) => x !== null) }) }),
);

onEachBackend("random malformed appends ask the device for nothing", async (device) => {
  using key = device.empty(GOOD.key, "float16");
  using cache = device.tensorFromBytes(new Uint8Array(768).fill(0x38), GOOD.cache, "float8_e5m2");
  const count = await countWork(device, async () => {
    await fc.assert(
      fc.asyncProperty(malformed, async (change) => {
        const a = { ...GOOD, ...change };
        try {
          await call(key, key, cache, a);
        } catch (error) {
          assert.ok(error instanceof KvasirError, `${error}`);
          assert.match(
            error.message,
            /^(batchIndices|positions|kvI|kvL|options|appendKey)[^]*: got /,
          );
          return;
        }
        assert.fail("no error");
      }),
      { numRuns: 3000 },
    );
  });
  assert.equal(count, 0);
  assert.deepEqual(new Set(await cache.readBytes()), new Set([0x38]));
}, BOTH);

onEachBackend("quantize() and dequantize() refuse what does not fit", async (device) => {
  using tensor = device.empty([2, 3], "float16");
  const any = (x: unknown) => x as never;
  const cases: [() => unknown, ErrorKind, string, RegExp][] = [
    [() => quantize(any(5), "float16"), "OptionError", "tensor", /expected a tensor/],
    [() => quantize(tensor, any("fp8")), "DTypeError", "dtype", /one of float32, .*float8_e5m2/],
    [() => quantize(tensor, any(undefined)), "DTypeError", "dtype", /got undefined/],
    [() => dequantize(tensor, "float8_e5m2"), "DTypeError", "dtype", /float16, bfloat16\./],
    [() => quantize(tensor, "float16", any(null)), "OptionError", "options", /an object/],
    [
      () => quantize(tensor, "float16", any({ scales: 1 })),
      "OptionError",
      "options.scales",
      /know/,
    ],
  ];
  for (const scale of [0, -1, NaN, Infinity, "1", [1], 1e38, 2 ** -127]) {
    cases.push(
      [() => quantize(tensor, "float16", any({ scale })), "OptionError", "options.scale", /got/],
      [() => dequantize(tensor, "float16", any({ scale })), "OptionError", "options.scale", /got/],
    );
  }
  for (const [work, kind, subject, message] of cases) {
    await assertFails(`${work}`, work, kind, subject, message);
  }
  const gone = device.empty([2, 3], "float16");
  gone.destroy();
  await assertFails("gone", () => quantize(gone, "float32"), "DestroyedError", "tensor");
}, BOTH);

onEachBackend("conversions of nothing are answered", async (device) => {
  using none = device.empty([0, 3], "float16");
  using codes = await quantize(none, "float8_e4m3fn", { scale: 2 });
  using values = await dequantize(codes, "float32");
  assert.deepEqual([codes.shape, values.shape], [[0, 3], [0, 3]]);
}, BOTH);
