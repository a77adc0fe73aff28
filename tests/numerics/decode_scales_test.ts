/** Decode over caches whose tokens have scales of their own, in every kind of cache, against the oracle. */

import assert from "node:assert/strict";
import { BatchDecodeWithPagedKvCache, MultiLevelCascadeAttention } from "@kvasir/attention";
import { decodeTest, runSingleDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { runPagedDecode, shuffled } from "../support/paged.ts";
import { type PrefillSpec, prefillTest } from "../support/prefill.ts";
import { normals, uniform } from "../support/values.ts";

const PAGED = {
  batch: 6,
  qoLen: 1,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  seqLens: [70, 33, 16, 64, 0, 1],
  tokenScales: true,
} as const satisfies PrefillSpec;

decodeTest(
  "decode: scales of tokens, every dtype and layout",
  (["float8_e4m3fn", "float8_e5m2", "float16", "float32"] as const).flatMap((kvDtype) =>
    (["NHD", "HND"] as const).map((kvLayout) => ({ ...PAGED, kvDtype, kvLayout }))
  ),
);
decodeTest(
  "decode: scales of tokens, every group and head dim",
  [1, 3, 4, 6, 8, 16].map((group, i) => ({
    ...PAGED,
    heads: [2 * group, 2] as const,
    headDim: i % 2 ? [24, 40, 72][i >> 1] : 128,
    kvDtype: i % 3 ? "float8_e4m3fn" as const : "float16" as const,
  })),
);
decodeTest("decode: scales of tokens, split", [
  { ...PAGED, batch: 2, kvLen: 3000, seqLens: [3000, 1777], kvDtype: "float8_e4m3fn" },
]);
// More requests than a GPU takes at once are not split: their scales are loaded step by step.
decodeTest("decode: scales of tokens, many requests of some steps", [
  {
    ...PAGED,
    batch: 270,
    kvLen: 200,
    seqLens: undefined,
    heads: [2, 2],
    headDim: 32,
    kvDtype: "float8_e4m3fn",
  },
]);
decodeTest(
  "decode: scales of tokens with every option",
  (["ROPE_LLAMA", "ALIBI", "NONE"] as const).map((posEncodingMode, i) => ({
    ...PAGED,
    kvDtype: i === 1 ? "float8_e5m2" : "float8_e4m3fn",
    headDim: 24,
    posEncodingMode,
    kScale: [0.5, 1.25],
    vScale: [2, -0.5],
    windowLeft: 25,
    logitsSoftCap: 3,
    sinks: [-1, 0, 1, 2, -3, 4],
  })),
);
for (const pageSize of [1, 3, 16, 100]) {
  prefillTest(
    `paged decode: scales of tokens, pages of ${pageSize}`,
    (["NHD", "HND"] as const).flatMap((kvLayout) => [
      { ...PAGED, kvLayout, kvDtype: "float8_e4m3fn" },
      { ...PAGED, kvLayout, kvDtype: "float8_e5m2", posEncodingMode: "ROPE_LLAMA", windowLeft: 21 },
    ]),
    { run: runPagedDecode({ pageSize, isJoined: pageSize !== 3 }) },
  );
}
prefillTest("paged decode: scales of tokens, split", [
  { ...PAGED, batch: 2, kvLen: 3000, seqLens: [3000, 1777], kvDtype: "float8_e4m3fn" },
], { run: runPagedDecode({ pageSize: 16 }) });
prefillTest("single decode: scales of tokens", [
  { ...PAGED, batch: 1, seqLens: undefined, kvDtype: "float8_e4m3fn" },
], { run: (device, inputs) => runSingleDecode(device, inputs) });

onEachBackend("paged decode: scales of tokens while a sequence grows", async (device) => {
  const sizes = { numQoHeads: 6, numKvHeads: 2, headDim: 16, pageSize: 16 } as const;
  const dtypes = { qDtype: "float32", kvDtype: "float8_e4m3fn", kvScales: "token" } as const;
  const table = { indptr: [0, 40, 43], indices: shuffled(43, 5) };
  const random = uniform(1);
  using q = device.tensor(normals(2 * 6 * 16, 1), [2, 6, 16], "float32");
  using cache = device.tensor(normals(43 * 1024, 2), [43, 2, 16, 2, 16], "float8_e4m3fn");
  const scales = Float32Array.from({ length: 43 * 64 }, () => 0.5 + random());
  using kvScales = device.tensor(scales, [43, 2, 16, 2], "float32");
  using grown = new BatchDecodeWithPagedKvCache(device);
  grown.plan({ ...sizes, ...dtypes, ...table, lastPageLen: [3, 1] });
  (await grown.run(q, cache, { kvScales })).destroy();
  using planned = new BatchDecodeWithPagedKvCache(device);
  for (const lastPageLen of [[4, 1], [9, 16], [16, 16]]) {
    grown.updateLastPageLen(lastPageLen);
    planned.plan({ ...sizes, ...dtypes, ...table, lastPageLen });
    using got = await grown.run(q, cache, { kvScales });
    using expected = await planned.run(q, cache, { kvScales });
    const [a, b] = [await got.read(), await expected.read()];
    a.forEach((x, i) => assert.ok(Math.abs(x - b[i]) < 1e-5, `${lastPageLen} ${i}: ${x}, ${b[i]}`));
  }
  // Other scales are other operands, not another plan.
  using doubled = device.tensor(
    scales.map((x, i) => i % 2 === 0 ? x : 2 * x),
    [43, 2, 16, 2],
    "float32",
  );
  using once = await grown.run(q, cache, { kvScales });
  using twice = await grown.run(q, cache, { kvScales: doubled });
  assert.deepEqual(await twice.read(), (await once.read()).map((x) => 2 * x));
});

onEachBackend("a cascade over scales of tokens is decode over all keys", async (device) => {
  const sizes = { numQoHeads: 6, numKvHeads: 2, headDim: 16, pageSize: 4 } as const;
  const dtypes = { qDtype: "float32", kvDtype: "float8_e5m2", kvScales: "token" } as const;
  using q = device.tensor(normals(2 * 6 * 16, 1), [2, 6, 16], "float32");
  using cache = device.tensor(normals(6 * 256, 2), [6, 2, 4, 2, 16], "float8_e5m2");
  const random = uniform(2);
  const scales = Float32Array.from({ length: 6 * 16 }, () => 0.5 + random());
  using kvScales = device.tensor(scales, [6, 2, 4, 2], "float32");
  using cascade = new MultiLevelCascadeAttention(device, { numLevels: 2 });
  const level = (
    qoIndptr: number[],
    pagedKvIndptr: number[],
    pagedKvIndices: number[],
    lens: number[],
  ) => ({
    qoIndptr,
    pagedKvIndptr,
    pagedKvIndices,
    pagedKvLastPageLen: lens,
  });
  const levels = [
    level([0, 2], [0, 2], [4, 1], [4]),
    level([0, 1, 2], [0, 1, 3], [0, 5, 2], [3, 1]),
  ];
  cascade.plan({ ...sizes, ...dtypes, levels });
  using decode = new BatchDecodeWithPagedKvCache(device);
  const table = { indptr: [0, 3, 7], indices: [4, 1, 0, 4, 1, 5, 2], lastPageLen: [3, 1] };
  decode.plan({ ...sizes, ...dtypes, ...table });
  using got = await cascade.run(q, cache, { kvScales });
  using expected = await decode.run(q, cache, { kvScales });
  const [a, b] = [await got.read(), await expected.read()];
  a.forEach((x, i) => assert.ok(Math.abs(x - b[i]) < 1e-5, `${i}: ${x}, ${b[i]}`));
});
