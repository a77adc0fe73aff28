/**
 * Prefill against the float64 oracle over the grid of what it offers: groups, lengths around the
 * edges of tiles, dtypes, layouts, head dims. Each axis is walked with the others varying along, not
 * multiplied, and in sizes that leave few kernels to compile.
 */

import type { DType } from "@kvasir/attention";
import { type PrefillSpec, prefillTest } from "../support/prefill.ts";

const LAYOUTS = ["NHD", "HND"] as const;

for (const group of [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 32, 64]) {
  prefillTest(`prefill: group ${group}`, [
    {
      batch: 2,
      qoLen: 19,
      kvLen: 37,
      heads: [2 * group, 2],
      headDim: 16,
      qoLens: [19, 3],
      seqLens: [37, 20],
      causal: true,
    },
    { qoLen: 5, kvLen: 21, heads: [3 * group, 3], headDim: 16, kvLayout: "HND", causal: true },
  ]);
}

/** Around the edges of any tile. */
const EDGES = [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129];

for (const causal of [false, true]) {
  prefillTest(
    `prefill: queries around tile edges, ${causal ? "causal" : "every key"}`,
    LAYOUTS.map((kvLayout, i): PrefillSpec => ({
      batch: EDGES.length,
      qoLen: 129,
      kvLen: 130,
      heads: [3, 1],
      headDim: 16,
      kvLayout,
      causal,
      qoLens: EDGES,
      seqLens: EDGES.map((length, j) => i ? 130 - length : EDGES[(5 * j + 3) % EDGES.length]),
    })),
  );
}

prefillTest(
  "prefill: keys around tile edges, from no query to many",
  [0, 1, 17, 64].map((qoLen) => ({
    batch: EDGES.length,
    qoLen: 64,
    kvLen: 129,
    heads: [3, 1],
    headDim: 16,
    causal: true,
    qoLens: new Array(EDGES.length).fill(qoLen),
    seqLens: EDGES,
  })),
);

prefillTest(
  "prefill: lengths that fill their tensors",
  [[16, 16], [64, 64], [128, 128], [65, 65], [1, 64], [33, 1]].map(([qoLen, kvLen]) => ({
    batch: 2,
    qoLen,
    kvLen,
    heads: [3, 1],
    headDim: 16,
    causal: true,
  })),
);

/** Every dtype as q's, the cache's and the output's; other files have more pairs. */
const DTYPES: readonly (readonly [q: DType, kv: DType, out?: DType])[] = [
  ["float32", "float8_e4m3fn"],
  ["float16", "float16"],
  ["bfloat16", "bfloat16"],
  ["float8_e4m3fn", "float8_e4m3fn"],
  ["float8_e5m2", "float8_e5m2", "float8_e5m2"],
  ["float16", "float8_e4m3fn", "float8_e4m3fn"],
];

for (const [qDtype, kvDtype, outDtype] of DTYPES) {
  prefillTest(
    `prefill: q ${qDtype}, kv ${kvDtype}, out ${outDtype ?? "by default"}`,
    LAYOUTS.map((kvLayout) => ({
      batch: 2,
      qoLen: 21,
      kvLen: 45,
      heads: [4, 2],
      headDim: 32,
      qDtype,
      kvDtype,
      outDtype,
      kvLayout,
      qoLens: [21, 9],
      seqLens: [45, 18],
      causal: true,
    })),
  );
}

const HEAD_DIMS: readonly (readonly [dim: number, dimV: number, kvDtype: DType, group: number])[] =
  [
    [40, 40, "float8_e4m3fn", 2],
    [64, 64, "bfloat16", 4],
    [80, 80, "float16", 3],
    [128, 128, "float8_e4m3fn", 5],
    [192, 128, "float16", 2],
    [256, 256, "float16", 2],
    [24, 40, "float32", 2],
    [64, 8, "float8_e5m2", 3],
  ];

for (const [i, [headDim, headDimV, kvDtype, group]] of HEAD_DIMS.entries()) {
  prefillTest(`prefill: head dims ${headDim} and ${headDimV}, ${kvDtype}`, [{
    batch: 2,
    qoLen: 18,
    kvLen: 35,
    heads: [2 * group, 2],
    headDim,
    headDimV,
    kvDtype,
    kvLayout: LAYOUTS[i % 2],
    qoLens: [18, 7],
    seqLens: [33, 35],
    causal: i % 2 === 0,
  }]);
}

prefillTest(
  "prefill: head dims that are no multiple of 8",
  [[1, 1], [3, 5], [7, 2], [33, 12]].map(([headDim, headDimV], i) => ({
    batch: 2,
    qoLen: 6,
    kvLen: 20,
    heads: [6, 2],
    headDim,
    headDimV,
    qDtype: "float16",
    kvDtype: i % 2 ? "float8_e4m3fn" : "bfloat16",
    kvLayout: LAYOUTS[i % 2],
    seqLens: [20, 9],
    causal: true,
  })),
  { only: ["wasm"] },
);

prefillTest("prefill: long contexts, few queries", [
  { qoLen: 3, kvLen: 3001, heads: [3, 1], headDim: 16, causal: true },
  { qoLen: 40, kvLen: 1025, heads: [3, 1], headDim: 16 },
]);

prefillTest("prefill: many requests and heads", [
  {
    batch: 120,
    qoLen: 3,
    kvLen: 5,
    heads: [3, 1],
    headDim: 16,
    causal: true,
    qoLens: Array.from({ length: 120 }, (_, i) => i % 4),
    seqLens: Array.from({ length: 120 }, (_, i) => i % 6),
  },
  { batch: 2, qoLen: 4, kvLen: 9, heads: [96, 32], headDim: 16, causal: true },
]);
