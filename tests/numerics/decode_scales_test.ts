/** Decode over caches whose tokens have scales of their own, in every kind of cache, against the oracle. */

import { decodeTest, runSingleDecode } from "../support/decode.ts";
import { runPagedDecode } from "../support/paged.ts";
import { type PrefillSpec, prefillTest } from "../support/prefill.ts";

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
    headDim: i % 2 ? 24 : 128,
    kvDtype: i % 3 ? "float8_e4m3fn" as const : "float16" as const,
  })),
);
decodeTest("decode: scales of tokens, split", [
  { ...PAGED, batch: 2, kvLen: 3000, seqLens: [3000, 1777], kvDtype: "float8_e4m3fn" },
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
