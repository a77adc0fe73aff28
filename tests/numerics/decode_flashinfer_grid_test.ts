/**
 * The sizes of FlashInfer's own batch decode test (test_batch_decode_kernels.py): 4 KV heads, 4 and 32
 * query heads, head dims of 128 to 512, with and without rotary encoding. Its axes are walked, not
 * multiplied: its longest (128 requests of 16384 keys) are for a GPU.
 */

import { type DecodeSpec, decodeTest } from "../support/decode.ts";

const QUERIES: Pick<DecodeSpec, "qDtype"> = { qDtype: "float16" };
const KV_DTYPES = ["float16", "float8_e4m3fn"] as const;

for (const posEncodingMode of ["NONE", "ROPE_LLAMA"] as const) {
  for (const kvDtype of KV_DTYPES) {
    decodeTest(`decode: FlashInfer's grid, ${kvDtype}, ${posEncodingMode}`, [
      { ...QUERIES, batch: 12, kvLen: 54, heads: [4, 4], headDim: 128, kvDtype, posEncodingMode },
      { ...QUERIES, batch: 17, kvLen: 97, heads: [32, 4], headDim: 128, kvDtype, posEncodingMode },
      { ...QUERIES, batch: 2, kvLen: 512, heads: [32, 4], headDim: 128, kvDtype, posEncodingMode },
      { ...QUERIES, batch: 12, kvLen: 54, heads: [4, 4], headDim: 256, kvDtype, posEncodingMode },
      {
        ...QUERIES,
        batch: 12,
        kvLen: 97,
        heads: [4, 4],
        headDim: 128,
        kvDtype,
        posEncodingMode,
        kvLayout: "HND",
        seqLens: [97, 1, 54, 0, 17, 96, 33, 32, 31, 64, 65, 2],
      },
      { ...QUERIES, kvLen: 2048, heads: [4, 4], headDim: 128, kvDtype, posEncodingMode },
    ]);
  }
}

decodeTest("decode: FlashInfer's grid, heads of 512", [
  { ...QUERIES, batch: 12, kvLen: 54, heads: [4, 4], headDim: 512, kvDtype: "float16" },
  { ...QUERIES, batch: 2, kvLen: 97, heads: [32, 4], headDim: 512, kvDtype: "float8_e4m3fn" },
]);
