/**
 * FlashInfer's decode on an H200, recorded, not measured in our runs: FlashInfer 0.5.3, paged cache
 * with pages of 16, D 128, median of 7 x 20 calls without an L2 flush.
 *
 * @module
 */

import type { BenchLine } from "../results.ts";
import { decodeBytes, type DecodeCase, decodeFlops } from "../gpu/decode.ts";

const SOURCE = "recorded: FlashInfer 0.5.3 on an H200";

/** batch, keys, query heads, KV heads; microseconds of CUDA cores and tensor cores, f16 and e4m3. */
const RECORDED: readonly (readonly number[])[] = [
  [64, 4096, 8, 8, 245, 251, 155, 191],
  [64, 4096, 16, 8, 252, 252, 286, 190],
  [64, 4096, 24, 8, 295, 252, 407, 190],
  [64, 4096, 32, 8, 340, 253, 482, 190],
  [64, 4096, 64, 8, 594, 252, 984, 189],
  [16, 1024, 32, 32, 66, 73, 48, 60],
  [64, 1024, 32, 8, 92, 74, 126, 61],
  [256, 1024, 32, 8, 321, 266, 474, 203],
  [1, 8192, 32, 8, 17.6, 17.2, 22.9, 17.2],
  [1, 131072, 32, 8, 172, 134, 236, 103],
];

/** FlashInfer's figures as lines of a result; only for an H200, where they were taken. */
export function flashInferLines(): BenchLine[] {
  return RECORDED.flatMap(([batch, kvLen, numQoHeads, numKvHeads, ...times]) =>
    times.map((microseconds, i): BenchLine => {
      const recorded: DecodeCase = {
        shape: { batch, qoLen: 1, kvLen, numQoHeads, numKvHeads, headDim: 128 },
        kvDtype: i < 2 ? "float16" : "float8_e4m3fn",
      };
      return {
        family: "decode",
        library: "FlashInfer",
        recorded: SOURCE,
        shape: recorded.shape,
        dtype: recorded.kvDtype,
        kernel: i % 2 === 0 ? "CUDA cores" : "tensor cores",
        time: { median: microseconds, min: microseconds, max: microseconds, raw: [microseconds] },
        bytes: decodeBytes(recorded),
        flops: decodeFlops(recorded),
      };
    })
  );
}
