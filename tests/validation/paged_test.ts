/** Plans of paged attention that do not fit, and runs that do not fit their plan. */

import assert from "node:assert/strict";
import {
  BatchDecodeWithPagedKvCache,
  BatchPrefillWithPagedKvCache,
  type DType,
  openDevice,
  type PagedKv,
  PagedKvCache,
  type PagedPrefillPlan,
  type RunOptions,
} from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { type BackendName, gpuTest, onEachBackend, openGpuDevice } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";
import { normals } from "../support/values.ts";

// Whether a call fits is found out before any kernel is chosen: two backends say it all.
const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

const SIZES = {
  numQoHeads: 6,
  numKvHeads: 3,
  headDim: 8,
  pageSize: 4,
  qDtype: "float32",
  kvDtype: "float16",
} as const;
/** 7, 0 and 4 tokens. */
const TABLE = { indptr: [0, 2, 2, 3], indices: [4, 1, 0], lastPageLen: [3, 0, 4] };
const PREFILL_TABLE = {
  qoIndptr: [0, 4, 5, 9],
  pagedKvIndptr: TABLE.indptr,
  pagedKvIndices: TABLE.indices,
  pagedKvLastPageLen: TABLE.lastPageLen,
};

const CACHE = { numPages: 5, pageSize: 4, numKvHeads: 3, headDim: 8, dtype: "float16" } as const;

type Bad = readonly [name: string, value: unknown, message: RegExp, subject?: string];

/** Of the table, by decode's names. */
const BAD_TABLES: readonly Bad[] = [
  ...[undefined, null, 9, "0223", {}, { length: 4 }].flatMap((value): Bad[] => [
    ["indptr", value, /expected an array of numbers/],
    ["indices", value, /expected an array of numbers/],
    ["lastPageLen", value, /expected an array of numbers/],
  ]),
  ["indptr", [], /no entries/],
  ["indptr", [1, 2, 2, 3], /for the beginning of request 0, expected 0/, "indptr[0]"],
  ["indptr", [0, 2, 1, 3], /for the end of request 1, expected an integer from 2/, "indptr[2]"],
  ["indptr", [0, 2, 2.5, 3], /for the end of request 1/, "indptr[2]"],
  ["indptr", [0, 2, 2, 4], /3 pages, expected 4, where .*indptr ends/i, "indices"],
  ["indptr", [0, 3], /3 numbers, expected 1, one a request/, "lastPageLen"],
  ["indices", [4, 1], /2 pages, expected 3/],
  ...[-1, 0.5, NaN, "1", null, undefined, 2 ** 31, 1n].map((page): Bad => [
    "indices",
    [4, 1, page],
    /for request 2, expected an integer from 0/,
    "indices[2]",
  ]),
  ["lastPageLen", [3, 0], /2 numbers, expected 3/],
  ...[0, -1, 5, 1.5, NaN, "3", null].map((length): Bad => [
    "lastPageLen",
    [length, 0, 4],
    /for request 0, expected an integer from 1 to 4, the page size/,
    "lastPageLen[0]",
  ]),
  ["lastPageLen", [3, 5, 4], /for request 1, expected an integer from 0 to 4/, "lastPageLen[1]"],
];

const BAD_SIZES: readonly Bad[] = [
  ...["numQoHeads", "numKvHeads", "headDim", "pageSize"].flatMap((name) => [
    ...[0, -1, 1.5, NaN, "4", null, undefined, {}].map((value): Bad => [
      name,
      value,
      /expected an integer of at least 1/,
    ]),
    [name, 2 ** 17, /expected an integer from 1 to 65536/] as Bad,
  ]),
  ["numQoHeads", 7, /over 3 KV heads/],
  ["qDtype", "float64", /expected "float32", "float16"/],
  ["kvDtype", undefined, /expected "float32", "float16"/],
  ["windowLeft", -2, /at least -1/],
  ["kScale", [1], /3, one for each of the KV heads/],
  ["posEncodingMode", "rope", /"NONE", "ROPE_LLAMA" or "ALIBI"/],
];

onEachBackend("paged plan() refuses what does not fit, and the old plan stays", async (device) => {
  using decode = new BatchDecodeWithPagedKvCache(device);
  using prefill = new BatchPrefillWithPagedKvCache(device);
  const names: Readonly<Record<string, string>> = {
    indptr: "pagedKvIndptr",
    indices: "pagedKvIndices",
    lastPageLen: "pagedKvLastPageLen",
  };
  const renamed = (text: string) => text.replace(/^\w+/, (name) => names[name] ?? name);
  const check = async () => {
    for (const [name, value, message, subject = name] of [...BAD_TABLES, ...BAD_SIZES]) {
      const label = `${name} ${Array.isArray(value) ? `[${value.map(String)}]` : String(value)}`;
      await assertFails(
        `decode, ${label}`,
        () => decode.plan({ ...TABLE, ...SIZES, [name]: value }),
        "OptionError",
        `options.${subject}`,
        message,
      );
      await assertFails(
        `prefill, ${label}`,
        () =>
          prefill.plan({ ...PREFILL_TABLE, ...SIZES, [renamed(name)]: value } as PagedPrefillPlan),
        "OptionError",
        `options.${renamed(subject)}`,
        message,
      );
    }
    for (const name of ["causal", "seqLens", "returnLse", "numPages", "qoIndptr", "headDimV"]) {
      await assertFails(
        `the unknown ${name}`,
        () => decode.plan({ ...TABLE, ...SIZES, [name]: 1 }),
        "OptionError",
        `options.${name}`,
        /does not know/,
      );
    }
    const fewer = () => prefill.plan({ ...PREFILL_TABLE, ...SIZES, qoIndptr: [0, 4, 9] });
    await assertFails("requests", fewer, "OptionError", "options.pagedKvIndptr", /expected 3/);
    const both = () =>
      prefill.plan({ ...PREFILL_TABLE, ...SIZES, customMask: new Array(9).fill(true) });
    await assertFails("mask", both, "OptionError", "options.customMask", /4 x 7, 1 x 0, 4 x 4/);
  };
  await check();
  using q = device.tensor(normals(3 * 48, 1), [3, 6, 8], "float32");
  using rows = device.tensor(normals(9 * 48, 1), [9, 6, 8], "float32");
  using cache = device.tensor(normals(5 * 2 * 4 * 24, 2), [5, 2, 4, 3, 8], "float16");
  await assertFails("no plan", () => decode.run(q, cache), "PlanError", "run", /got no plan/);
  const early = () => decode.updateLastPageLen([3, 0, 4]);
  await assertFails("no plan", early, "PlanError", "updateLastPageLen", /got no plan/);
  decode.plan({ ...TABLE, ...SIZES });
  prefill.plan({ ...PREFILL_TABLE, ...SIZES });
  const [first, second] = [await decode.run(q, cache), await prefill.run(rows, cache)];
  using decoded = first;
  using prefilled = second;
  await check();
  const [again, once] = [await decode.run(q, cache), await prefill.run(rows, cache)];
  using decodedAgain = again;
  using prefilledAgain = once;
  assertSameBits(await decodedAgain.read(), await decoded.read(), "decode");
  assertSameBits(await prefilledAgain.read(), await prefilled.read(), "prefill");
}, BOTH);

onEachBackend("plans are copies", async (device) => {
  using decode = new BatchDecodeWithPagedKvCache(device);
  using q = device.tensor(normals(3 * 48, 1), [3, 6, 8], "float32");
  using cache = device.tensor(normals(5 * 2 * 4 * 24, 2), [5, 2, 4, 3, 8], "float16");
  decode.plan({ ...TABLE, ...SIZES, kScale: [1, 2, 3] });
  using expected = await decode.run(q, cache);
  const lists = {
    indptr: Int32Array.from(TABLE.indptr),
    indices: [...TABLE.indices],
    lastPageLen: [...TABLE.lastPageLen],
    kScale: [1, 2, 3],
  };
  decode.plan({ ...lists, ...SIZES });
  for (const list of Object.values(lists)) list.fill(0);
  using out = await decode.run(q, cache);
  assertSameBits(await out.read(), await expected.read(), "after the arrays changed");
  const lengths = [2, 0, 1];
  decode.updateLastPageLen(lengths);
  using shorter = await decode.run(q, cache);
  lengths.fill(4);
  using same = await decode.run(q, cache);
  assertSameBits(await same.read(), await shorter.read(), "after the lengths changed");
}, BOTH);

onEachBackend("paged run() refuses caches that the plan does not fit", async (device) => {
  using decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan({ ...TABLE, ...SIZES });
  using q = device.tensor(normals(3 * 48, 1), [3, 6, 8], "float32");
  using good = device.empty([5, 2, 4, 3, 8], "float16");
  const caches: readonly [readonly (readonly number[])[], DType, ErrorKind, string, RegExp][] = [
    [
      [[4, 2, 4, 3, 8]],
      "float16",
      "PlanError",
      "kvCache",
      /4 pages, of which request 0 has page 4/,
    ],
    [[[0, 2, 4, 3, 8]], "float16", "PlanError", "kvCache", /at least 5, by the plan/],
    [[[5, 2, 8, 3, 8]], "float16", "PlanError", "kvCache", /pageSize 8, expected 4/],
    [[[5, 2, 3, 4, 8]], "float16", "PlanError", "kvCache", /kvLayout/],
    [[[5, 2, 4, 6, 8]], "float16", "PlanError", "kvCache", /numKvHeads 6, expected 3/],
    [[[5, 2, 4, 3, 16]], "float16", "PlanError", "kvCache", /headDim 16, expected 8/],
    [
      [[5, 2, 4, 3, 8]],
      "float8_e4m3fn",
      "PlanError",
      "kvCache",
      /kDtype "float8_e4m3fn", expected "float16"/,
    ],
    [[[5, 3, 4, 3, 8]], "float16", "ShapeError", "kvCache", /expected 2, for k and v/],
    [[[5, 4, 3, 8]], "float16", "ShapeError", "kvCache", /expected 5 dims/],
    [[[5, 4, 3, 8], [5, 4, 3, 16]], "float16", "PlanError", "kvCache", /headDimV 16, expected 8/],
    [[[5, 4, 3, 8], [6, 4, 3, 8]], "float16", "ShapeError", "kvCache[1]", /kvCache\[0\]'s shape/],
    [[[5, 2, 4, 3, 8], [5, 2, 4, 3, 8]], "float16", "ShapeError", "kvCache[0]", /expected 4 dims/],
  ];
  for (const [shapes, dtype, kind, subject, message] of caches) {
    const tensors = shapes.map((shape) => device.empty(shape, dtype));
    const cache = (tensors.length === 1 ? tensors[0] : tensors) as PagedKv;
    const label = `${shapes.map((shape) => `[${shape}]`)} ${dtype}`;
    await assertFails(label, () => decode.run(q, cache), kind, subject, message);
    for (const tensor of tensors) tensor.destroy();
  }
  for (const value of [undefined, null, 5, "cache", {}, [], [good], [good, good], [good, 1]]) {
    const work = () => decode.run(q, value as never);
    await assertFails(`cache ${String(value)}`, work, "OptionError", "kvCache", /./)
      .catch(() => assertFails(`cache ${String(value)}`, work, "OptionError", "kvCache[1]", /./));
  }
  using wrong = device.empty([3, 6, 16], "float32");
  await assertFails("q", () => decode.run(wrong, good), "PlanError", "q", /expected \[3, 6, 8\]/);
  using other = await openDevice({ backend: "wasm" });
  using foreign = other.empty([5, 2, 4, 3, 8], "float16");
  const mixed = () => decode.run(q, foreign);
  await assertFails("another device", mixed, "DeviceMismatchError", "kvCache", /another device/);
  using layers = PagedKvCache.create(device, { ...CACHE, numLayers: 2 });
  await assertFails("layers", () => decode.run(q, layers), "OptionError", "kvCache", /layer\(i\)/);
  using turned = PagedKvCache.create(device, { ...CACHE, kvLayout: "HND" });
  await assertFails("layout", () => decode.run(q, turned), "OptionError", "kvCache", /kvLayout/);
  const options: readonly [object, ErrorKind, string, RegExp][] = [
    [{ stream: 1 }, "OptionError", "options.stream", /encoder/],
    [{ encoder: {} }, "OptionError", "options.encoder", /GPUCommandEncoder|WASM backend/],
    [{ out: good }, "PlanError", "out", /expected \[3, 6, 8\]/],
    [{ out: q }, "OptionError", "options.out", /the tensor or the buffer of q/],
    [{ lse: q }, "OptionError", "options.lse", /returnLse: true/],
  ];
  for (const [option, kind, subject, message] of options) {
    const work = () => decode.run(q, good, option as RunOptions);
    await assertFails(Object.keys(option).join(), work, kind, subject, message);
  }
  const dead = device.empty([5, 2, 4, 3, 8], "float16");
  dead.destroy();
  await assertFails("dead", () => decode.run(q, dead), "DestroyedError", "kvCache", /destroyed/);
  const out = await decode.run(q, good);
  out.destroy();
  decode.destroy();
  decode.destroy();
  const late = () => decode.run(q, good);
  await assertFails("a destroyed object", late, "DestroyedError", "run", /destroyed object/);
  const plan = () => decode.plan({ ...TABLE, ...SIZES });
  await assertFails("a destroyed object", plan, "DestroyedError", "plan", /destroyed object/);
}, BOTH);

gpuTest("planned calls on a device that is gone", async () => {
  const device = await openDevice({ gpuDevice: await openGpuDevice() });
  const decode = new BatchDecodeWithPagedKvCache(device);
  decode.plan({ ...TABLE, ...SIZES });
  const q = device.empty([3, 6, 8], "float32");
  const cache = device.empty([5, 2, 4, 3, 8], "float16");
  device.destroy();
  for (const work of [() => decode.plan({ ...TABLE, ...SIZES }), () => decode.run(q, cache)]) {
    await assert.rejects(async () => await work(), { name: "DestroyedError" });
  }
  decode.destroy();
});
