/** Keys and values of different dtypes, in every call that has a cache, against the oracle and the codec. */

import assert from "node:assert/strict";
import {
  appendPagedKvCache,
  BatchDecodeWithPagedKvCache,
  type Device,
  type DType,
  MultiLevelCascadeAttention,
  PagedKvCache,
} from "@kvasir/attention";
import { onEachBackend } from "../support/device.ts";
import { runPagedDecode, runPagedPrefill } from "../support/paged.ts";
import { type PrefillSpec, prefillTest } from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";
import { store } from "../support/storage.ts";

const pair = (kvDtype: DType, vDtype: DType) => ({ kvDtype, vDtype });
const FP8_PAIRS = [pair("float8_e5m2", "float8_e4m3fn"), pair("float8_e4m3fn", "float8_e5m2")];
/** Pieces of k are as wide as v's, twice, four times, half, a quarter. */
const PAIRS = [
  ...FP8_PAIRS,
  pair("float16", "float8_e4m3fn"),
  pair("float8_e4m3fn", "bfloat16"),
  pair("bfloat16", "float16"),
  pair("float32", "float8_e5m2"),
  pair("float8_e4m3fn", "float32"),
  pair("float16", "float32"),
];
const DECODE = {
  batch: 4,
  qoLen: 1,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  seqLens: [70, 33, 0, 1],
} as const satisfies PrefillSpec;
const PREFILL = { ...DECODE, qoLen: 21, qoLens: [21, 5, 3, 1], causal: true } as const;

prefillTest(
  "mixed formats: paged decode, every pair",
  PAIRS.map((pair) => ({ ...DECODE, ...pair })),
  { run: runPagedDecode({ pageSize: 16 }) },
);
prefillTest(
  "mixed formats: prefill, every pair",
  PAIRS.map((pair, i) => ({ ...PREFILL, ...pair, kvLayout: i % 2 ? "HND" : "NHD" })),
);
// Head dims that leave lanes without a piece, and turned rows.
prefillTest(
  "mixed formats: rotary encoding, odd head dims, both forms of pages",
  PAIRS.slice(1, 5).map((pair, i) => ({
    ...DECODE,
    ...pair,
    headDim: i % 2 ? 24 : 72,
    kvLayout: i % 3 ? "NHD" : "HND",
    posEncodingMode: "ROPE_LLAMA",
    windowLeft: 25,
  })),
  { run: runPagedDecode({ pageSize: 5, isJoined: false }) },
);
prefillTest(
  "mixed formats: ragged prefill",
  FP8_PAIRS.map((pair) => ({ ...PREFILL, ...pair, headDimV: 24, posEncodingMode: "ROPE_LLAMA" })),
  { run: runRagged },
);
prefillTest(
  "mixed formats: paged prefill, scales of tokens",
  FP8_PAIRS.map((pair) => ({ ...PREFILL, ...pair, tokenScales: true })),
  { run: runPagedPrefill({ pageSize: 5 }) },
);
prefillTest(
  "mixed formats: groups",
  [3, 8].flatMap((group) =>
    FP8_PAIRS.map((pair) => ({
      ...DECODE,
      ...pair,
      heads: [2 * group, 2] as const,
      headDim: 64, // 8 heads of 16 take lavapipe 13 s to compile
      qDtype: "float16" as const,
    }))
  ),
  { run: runPagedDecode({ pageSize: 16 }) },
);

/** NaN codes of one operand only. */
onEachBackend(
  "mixed formats: NaN of k and of v are each found by their own format",
  async (device) => {
    const [pageSize, headDim] = [4, 8];
    for (
      const { k: kDtype, v: vDtype } of [
        { k: "float8_e4m3fn", v: "float8_e5m2" },
        { k: "float8_e5m2", v: "float8_e4m3fn" },
      ] as const
    ) {
      for (const odd of ["k", "v"] as const) {
        const make = (dtype: DType, isOdd: boolean) => {
          const { bytes } = store(new Float32Array(pageSize * headDim).fill(1), dtype);
          if (isOdd) bytes[2 * headDim + 3] = 0x7f; // token 2, dim 3: NaN in both formats
          return device.tensorFromBytes(bytes, [1, pageSize, 1, headDim], dtype);
        };
        using k = make(kDtype, odd === "k");
        using v = make(vDtype, odd === "v");
        using q = device.tensor(new Float32Array(headDim).fill(1), [1, 1, headDim], "float32");
        using decode = new BatchDecodeWithPagedKvCache(device, { kvLayout: "NHD" });
        decode.plan({
          indptr: [0, 1],
          indices: [0],
          lastPageLen: [pageSize],
          numQoHeads: 1,
          numKvHeads: 1,
          headDim,
          pageSize,
          qDtype: "float32",
          kvDtype: { k: kDtype, v: vDtype },
        });
        using out = await decode.run(q, [k, v]);
        const expected = Array.from(
          { length: headDim },
          (_, d) => odd === "k" || d === 3 ? NaN : 1,
        );
        assert.deepEqual([...await out.read()], expected, `${odd} of ${kDtype}, ${vDtype}`);
      }
    }
  },
);

/** The bytes of k and v after three tokens went into a pair of pages. */
async function appended(device: Device, kDtype: DType, vDtype: DType, kvScales: boolean) {
  const [heads, headDim, pageSize, tokens] = [2, 16, 4, 3];
  const rows = (seed: number) =>
    Float32Array.from({ length: tokens * heads * headDim }, (_, i) => Math.sin(i * seed) * 50);
  using key = device.tensor(rows(1.1), [tokens, heads, headDim], "float32");
  using value = device.tensor(rows(2.3), [tokens, heads, headDim], "float32");
  using k = device.empty([2, pageSize, heads, headDim], kDtype);
  using v = device.empty([2, pageSize, heads, headDim], vDtype);
  using scales = device.empty([2, heads, pageSize, 2], "float32");
  await appendPagedKvCache(
    key,
    value,
    [0, 0, 0],
    [2, 3, 4],
    [k, v],
    [1, 0],
    [0, 2],
    [1],
    kvScales
      ? { kvScales: scales, posEncodingMode: "ROPE_LLAMA" }
      : { kScale: 0.5, vScale: [0.25, 2], posEncodingMode: "ROPE_LLAMA" },
  );
  const of = await scales.read();
  const half = (part: number) => [...of].filter((_, i) => i % 2 === part);
  return { k: await k.readBytes(), v: await v.readBytes(), kScales: half(0), vScales: half(1) };
}

onEachBackend("mixed formats: an append stores what appends of one format do", async (device) => {
  for (const { kvDtype: kDtype, vDtype } of PAIRS) {
    for (
      const kvScales of FP8_PAIRS.some((p) => p.kvDtype === kDtype && p.vDtype === vDtype)
        ? [false, true]
        : [false]
    ) {
      const label = `${kDtype}, ${vDtype}, ${kvScales}`;
      const mixed = await appended(device, kDtype, vDtype, kvScales);
      const ofK = await appended(device, kDtype, kDtype, kvScales);
      const ofV = await appended(device, vDtype, vDtype, kvScales);
      assert.deepEqual(mixed.k, ofK.k, label);
      assert.deepEqual(mixed.v, ofV.v, label);
      assert.deepEqual(mixed.kScales, ofK.kScales, label);
      assert.deepEqual(mixed.vScales, ofV.vScales, label);
    }
  }
});

onEachBackend("mixed formats: PagedKvCache keeps, forks and saves them", async (device) => {
  const sizes = { numPages: 6, pageSize: 4, numKvHeads: 2, headDim: 16 };
  const dtype = { k: "float8_e5m2", v: "float8_e4m3fn" } as const;
  using cache = PagedKvCache.create(device, { ...sizes, dtype });
  using wide = PagedKvCache.create(device, { ...sizes, dtype: { k: "float16", v: "float8_e5m2" } });
  const rows = Float32Array.from({ length: 6 * 2 * 16 }, (_, i) => Math.cos(i) * 9);
  using key = device.tensor(rows, [6, 2, 16], "float32");
  using value = device.tensor(rows.toReversed(), [6, 2, 16], "float32");
  for (const own of [cache, wide]) {
    const sequence = own.createSequence();
    await own.reserveAndAppend([{ sequence, tokens: 6 }], key, value);
    const fork = own.fork(sequence);
    const bytes = await own.toBytes(fork);
    own.free(sequence);
    const restored = await own.fromBytes(bytes);
    assert.deepEqual(await own.toBytes(restored), bytes);
  }
  const [sequence] = [cache.createSequence()];
  await cache.reserveAndAppend([{ sequence, tokens: 6 }], key, value);
  const bytes = await cache.toBytes(sequence);
  const header = 56;
  const size = 6 * 2 * 16;
  assert.deepEqual(bytes.slice(header, header + size), store(rows, "float8_e5m2").bytes);
  assert.deepEqual(bytes.slice(header + size), store(rows.toReversed(), "float8_e4m3fn").bytes);
  await assert.rejects(
    () => wide.fromBytes(bytes),
    /keys in float8_e5m2.*float16, the cache's/s,
  );
});

onEachBackend("mixed formats: a cascade gives what flat pages give", async (device) => {
  const kvDtype = { k: "float16", v: "float8_e4m3fn" } as const;
  const heads = { numQoHeads: 4, numKvHeads: 2, headDim: 16, pageSize: 4 };
  const sizes = { ...heads, qDtype: "float32", kvDtype } as const;
  const random = (count: number, seed: number) =>
    Float32Array.from({ length: count }, (_, i) => 2 * Math.sin(seed * (i + 1) ** 2));
  using q = device.tensor(random(2 * 4 * 16, 1), [2, 4, 16], "float32");
  using k = device.tensor(random(5 * 4 * 2 * 16, 2), [5, 4, 2, 16], kvDtype.k);
  using v = device.tensor(random(5 * 4 * 2 * 16, 3), [5, 4, 2, 16], kvDtype.v);
  using cascade = new MultiLevelCascadeAttention(device, { numLevels: 2, kvLayout: "NHD" });
  cascade.plan({
    ...sizes,
    levels: [
      {
        qoIndptr: [0, 2],
        pagedKvIndptr: [0, 2],
        pagedKvIndices: [3, 1],
        pagedKvLastPageLen: [4],
      },
      {
        qoIndptr: [0, 1, 2],
        pagedKvIndptr: [0, 1, 2],
        pagedKvIndices: [0, 4],
        pagedKvLastPageLen: [3, 4],
      },
    ],
  });
  using flat = new BatchDecodeWithPagedKvCache(device, { kvLayout: "NHD" });
  flat.plan({
    ...sizes,
    indptr: [0, 3, 6],
    indices: [3, 1, 0, 3, 1, 4],
    lastPageLen: [3, 4],
  });
  using got = await cascade.run(q, [k, v]);
  using expected = await flat.run(q, [k, v]);
  const [x, y] = [await got.read(), await expected.read()];
  x.forEach((value, i) => assert.ok(Math.abs(value - y[i]) < 4e-6, `${i}: ${value}, ${y[i]}`));
});

onEachBackend(
  "mixed formats: dtypes that are none, and caches of others, are refused",
  async (device) => {
    const sizes = { numKvHeads: 2, headDim: 8, pageSize: 4 };
    const batch = { numQoHeads: 2, indptr: [0, 1], indices: [0], lastPageLen: [2] };
    using decode = new BatchDecodeWithPagedKvCache(device);
    const plan = (kvDtype: unknown) =>
      decode.plan({ ...sizes, ...batch, qDtype: "float32", kvDtype: kvDtype as DType });
    const create = (dtype: unknown) =>
      PagedKvCache.create(device, { ...sizes, numPages: 2, dtype: dtype as DType });
    const bad: [value: unknown, member: string][] = [
      [{}, ""],
      [[], ""],
      [{ k: "float16" }, ".v"],
      [{ v: "float16" }, ".k"],
      [{ k: "float16", v: "int8" }, ".v"],
      [{ k: null, v: "float16" }, ".k"],
      [{ k: "float16", v: "float16", q: "float16" }, ".q"],
    ];
    for (const [value, member] of bad) {
      for (const [name, work] of [["kvDtype", plan], ["dtype", create]] as const) {
        const refused = {
          name: "OptionError",
          message: new RegExp(`options.${name}${member}: got`),
        };
        assert.throws(() => work(value), refused, `${name} ${JSON.stringify(value)}`);
      }
    }
    plan({ k: "float8_e5m2", v: "float8_e4m3fn" });
    using q = device.empty([1, 2, 8], "float32");
    using k = device.empty([1, 4, 2, 8], "float8_e5m2");
    using v = device.empty([1, 4, 2, 8], "float8_e4m3fn");
    using joined = device.empty([1, 2, 4, 2, 8], "float8_e5m2");
    for (const cache of [joined, [v, k], [k, k]] as const) {
      await assert.rejects(() => decode.run(q, cache), /PlanError|OptionError/);
    }
    using out = await decode.run(q, [k, v]);
    assert.deepEqual(new Set(await out.read()), new Set([0]));
  },
);
