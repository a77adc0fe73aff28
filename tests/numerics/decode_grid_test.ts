/**
 * Decode against the float64 oracle over the grid of what it offers: dtypes, layouts, groups, head
 * dims, lengths and scales. Each axis is walked with the others varying along, not multiplied.
 */

import type { DType } from "@kvasir/attention";
import { type DecodeSpec, decodeTest } from "../support/decode.ts";

/** What each dtype of q is combined with. */
const DTYPES: Readonly<Partial<Record<DType, readonly DType[]>>> = {
  float32: ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"],
  float16: ["float32", "float16", "float8_e4m3fn", "float8_e5m2"],
  bfloat16: ["float32", "bfloat16", "float8_e4m3fn"],
};
const LAYOUTS = ["NHD", "HND"] as const;

for (const [qDtype, kvDtypes] of Object.entries(DTYPES)) {
  decodeTest(
    `decode: q ${qDtype} over KV dtypes, both layouts`,
    kvDtypes.flatMap((kvDtype) =>
      LAYOUTS.map((kvLayout): DecodeSpec => ({
        batch: 2,
        kvLen: 75,
        heads: [4, 2],
        headDim: 32,
        qDtype: qDtype as DType,
        kvDtype,
        kvLayout,
        seqLens: [75, 18],
      }))
    ),
  );
}

for (const group of [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 32, 33, 64]) {
  decodeTest(`decode: group ${group}`, [
    { batch: 2, kvLen: 37, heads: [2 * group, 2], headDim: 32, seqLens: [37, 20] },
    { kvLen: 21, heads: [3 * group, 3], headDim: 32, kvLayout: "HND" },
  ]);
}

// Wide heads, and many of them on one KV head, are what kernels have too few registers for.
decodeTest(
  "decode: wide groups over wide heads",
  [4, 8, 10].map((group) => ({
    kvLen: 70,
    heads: [group, 1],
    headDim: 128,
    qDtype: "float16",
    kvDtype: "float8_e4m3fn",
  })),
);

const HEAD_DIMS: readonly (readonly [headDim: number, kvDtype: DType, group: number])[] = [
  [8, "float32", 2],
  [8, "float8_e4m3fn", 3],
  [16, "float16", 4],
  [24, "float8_e5m2", 1],
  [40, "float8_e4m3fn", 2],
  [40, "float16", 5],
  [56, "float8_e5m2", 3],
  [64, "bfloat16", 4],
  [80, "float8_e4m3fn", 8],
  [96, "float16", 3],
  [112, "float32", 2],
  [112, "float8_e5m2", 7],
  [128, "float8_e4m3fn", 4],
  [224, "bfloat16", 3],
  [224, "float8_e4m3fn", 5],
  [256, "float16", 8],
  [256, "float32", 6],
  [512, "float8_e4m3fn", 8],
  [512, "float32", 2],
];

for (const [i, [headDim, kvDtype, group]] of HEAD_DIMS.entries()) {
  decodeTest(`decode: head dim ${headDim}, ${kvDtype}`, [{
    batch: 2,
    kvLen: 70,
    heads: [2 * group, 2],
    headDim,
    kvDtype,
    kvLayout: LAYOUTS[i % 2],
    seqLens: [33, 70],
  }]);
}

/** Around every power of two, where the tiles of any kernel end. */
const EDGES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 127]
  .concat([128, 129, 191, 192, 193, 255, 256, 257, 383, 511, 512, 513, 600]);

for (const [headDim, kvDtype] of [[8, "float32"], [64, "float8_e4m3fn"]] as const) {
  decodeTest(
    `decode: every length around tile edges, head dim ${headDim}`,
    LAYOUTS.map((kvLayout) => ({
      batch: EDGES.length,
      kvLen: 600,
      heads: [3, 1],
      headDim,
      kvDtype,
      kvLayout,
      seqLens: EDGES,
    })),
  );
}

decodeTest(
  "decode: lengths that fill their cache",
  [1, 2, 16, 17, 64, 65, 128].map((kvLen) => ({
    batch: 2,
    kvLen,
    heads: [4, 2],
    headDim: 64,
    kvDtype: "float8_e4m3fn",
  })),
);

decodeTest("decode: one long sequence", [
  { kvLen: 5001, heads: [8, 2], headDim: 64, kvDtype: "float8_e4m3fn" },
  { kvLen: 5001, heads: [4, 1], headDim: 128, qDtype: "float16", kvDtype: "float16" },
]);

decodeTest("decode: many requests and heads", [
  { batch: 300, kvLen: 3, heads: [4, 4], headDim: 8 },
  { batch: 3, kvLen: 9, heads: [96, 96], headDim: 16, kvDtype: "float16" },
]);

const SCALED = { batch: 2, kvLen: 50, heads: [6, 2], headDim: 64, seqLens: [50, 31] } as const;

decodeTest("decode: smScale, kScale and vScale", [
  { ...SCALED, smScale: 0.5 },
  { ...SCALED, smScale: 0 },
  { ...SCALED, smScale: -0.1 },
  { ...SCALED, kScale: 0.25 },
  { ...SCALED, vScale: 1.75 },
  { ...SCALED, vScale: 0 },
  { ...SCALED, smScale: 0.3, kScale: 1.5, vScale: -2, kvDtype: "float8_e4m3fn" },
  { ...SCALED, kScale: 0.05, vScale: 0.02, kvDtype: "float8_e5m2", qDtype: "float16" },
]);

decodeTest(
  "decode: head dims that are no multiple of 8",
  [1, 2, 3, 5, 7, 12, 33, 100].map((headDim, i) => ({
    batch: 2,
    kvLen: 20,
    heads: [6, 2],
    headDim,
    qDtype: "float16",
    kvDtype: i % 2 ? "float8_e4m3fn" : "bfloat16",
    kvLayout: LAYOUTS[i % 2],
    seqLens: [20, 9],
  })),
  ["wasm"],
);
