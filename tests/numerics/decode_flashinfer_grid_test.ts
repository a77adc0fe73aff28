/**
 * The grid of FlashInfer's own decode tests, with the sizes that only take time cut: fewer heads and
 * requests where contexts are long. Their reference is their own code; here it is float64.
 */

import { type DecodeSpec, decodeTest } from "../support/decode.ts";

const HALF = { qDtype: "float16", kvDtype: "float16" } as const;
const FP8 = { qDtype: "float16", kvDtype: "float8_e4m3fn" } as const;
const LAYOUTS = ["NHD", "HND"] as const;

// test_batch_decode_kernels.py
for (const cache of [HALF, FP8]) {
  for (const posEncodingMode of ["NONE", "ROPE_LLAMA"] as const) {
    // A wide kernel with rotary encoding takes software adapters seconds to compile: one is enough.
    if (posEncodingMode === "ROPE_LLAMA" && cache === HALF) continue;
    decodeTest(
      `FlashInfer's grid: batches over ${cache.kvDtype}, ${posEncodingMode}`,
      [[12, 54], [17, 97], [3, 512], [1, 2048]].map(([batch, kvLen], i): DecodeSpec => ({
        ...cache,
        batch,
        kvLen,
        heads: [4, 4],
        headDim: 128,
        posEncodingMode,
        kvLayout: LAYOUTS[i % 2],
      })),
    );
  }
}

decodeTest("FlashInfer's grid: 32 heads on 4, wide heads, many requests", [
  { ...HALF, batch: 12, kvLen: 54, heads: [32, 4], headDim: 128 },
  {
    ...FP8,
    batch: 12,
    kvLen: 97,
    heads: [4, 4],
    headDim: 128,
    kvLayout: "HND",
    seqLens: [97, 1, 54, 0, 17, 96, 33, 32, 31, 64, 65, 2],
  },
  { ...FP8, batch: 5, kvLen: 97, heads: [4, 4], headDim: 256 },
  { ...HALF, batch: 3, kvLen: 54, heads: [4, 4], headDim: 512 },
  { ...HALF, batch: 128, kvLen: 54, heads: [1, 1], headDim: 128 },
]);

// test_single_decode.cu, test_tensor_cores_decode.py
decodeTest(
  "FlashInfer's grid: lengths of single decode",
  [1, 3, 9, 27, 81, 129, 257, 512, 999, 1024, 2048, 4096].map((kvLen, i) => ({
    ...HALF,
    kvLen,
    heads: [4, 4],
    headDim: 64,
    kvLayout: LAYOUTS[i % 2],
  })),
);

decodeTest("FlashInfer's grid: groups 1, 4 and 8 over long contexts", [
  { ...HALF, kvLen: 16384, heads: [1, 1], headDim: 64, kvLayout: "HND" },
  { ...HALF, kvLen: 32789, heads: [1, 1], headDim: 64 },
  { ...HALF, kvLen: 8192, heads: [4, 1], headDim: 64 },
  { ...HALF, kvLen: 4099, heads: [8, 1], headDim: 64, kvLayout: "HND" },
]);

// test_sliding_window.py
decodeTest(
  "FlashInfer's grid: sliding windows",
  [1, 3, 19, 99, 199, 1177, 1999].flatMap((kvLen) =>
    [3, 13, 23, 37, 43].map((windowLeft) => ({
      ...HALF,
      kvLen,
      heads: [4, 4] as const,
      headDim: 64,
      windowLeft,
    }))
  ),
);

// test_logits_cap.py
decodeTest("FlashInfer's grid: soft caps", [
  ...[1, 9, 81, 729].flatMap((kvLen) =>
    [1, 30, 50].map((logitsSoftCap) => ({
      ...HALF,
      kvLen,
      heads: [4, 4] as const,
      headDim: 128,
      logitsSoftCap,
    }))
  ),
  { ...HALF, kvLen: 33001, heads: [1, 1], headDim: 128, logitsSoftCap: 30 },
]);

// test_alibi.py
decodeTest(
  "FlashInfer's grid: ALiBi",
  [1, 9, 81, 729].flatMap((kvLen) =>
    [4, 8, 32].map((heads) => ({
      ...HALF,
      kvLen,
      heads: [heads, heads] as const,
      headDim: 128,
      posEncodingMode: "ALIBI" as const,
    }))
  ),
);

// test_decode_fp8_calibration_scale.py
decodeTest(
  "FlashInfer's grid: FP8 with scales",
  [7, 19, 39, 1170, 39275].map((kvLen) => ({
    ...FP8,
    kvLen,
    heads: kvLen > 10_000 ? [1, 1] as const : [4, 4] as const,
    headDim: 128,
    kScale: 0.0213,
    vScale: 0.0171,
  })),
);
