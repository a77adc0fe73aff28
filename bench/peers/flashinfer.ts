/**
 * FlashInfer on an H200, recorded, not measured in our runs: FlashInfer 0.5.3, D 128, median of 7 x 20
 * calls without an L2 flush; decode over a paged cache with pages of 16.
 *
 * @module
 */

import { type BenchLine, samples } from "../results.ts";
import { decodeBytes, decodeFlops, type DecodeProblem } from "../gpu/decode_cases.ts";
import { prefillBytes, prefillFlops, prefillShape } from "../gpu/prefill_cases.ts";

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

/** Tokens, query heads, KV heads of causal prefill in f16; TFLOP/s of its fa2 and fa3 kernels. */
const RECORDED_PREFILL: readonly (readonly number[])[] = [
  [1024, 32, 8, 174, 283],
  [4096, 32, 8, 311, 555],
  [4096, 24, 8, 290, 502],
  [8192, 32, 8, 342, 573],
];

/** FlashInfer's figures as lines of a result; only for an H200, where they were taken. */
export function flashInferLines(): BenchLine[] {
  return [...decodeLines(), ...prefillLines()];
}

function decodeLines(): BenchLine[] {
  return RECORDED.flatMap(([batch, kvLen, numQoHeads, numKvHeads, ...times]) =>
    times.map((microseconds, i): BenchLine => {
      const recorded: DecodeProblem = {
        shape: { batch, qoLen: 1, kvLen, numQoHeads, numKvHeads, headDim: 128 },
        dtype: i < 2 ? "float16" : "float8_e4m3fn",
      };
      return {
        family: "decode",
        library: "FlashInfer",
        recorded: SOURCE,
        shape: recorded.shape,
        dtype: recorded.dtype,
        kernel: i % 2 === 0 ? "CUDA cores" : "tensor cores",
        time: samples([microseconds]),
        bytes: decodeBytes(recorded),
        flops: decodeFlops(recorded),
      };
    })
  );
}

function prefillLines(): BenchLine[] {
  return RECORDED_PREFILL.flatMap(([tokens, numQoHeads, numKvHeads, ...rates]) =>
    rates.map((teraflops, i): BenchLine => {
      const shape = prefillShape(tokens, numQoHeads, numKvHeads);
      const flops = prefillFlops(shape);
      return {
        family: "prefill",
        library: "FlashInfer",
        recorded: SOURCE,
        shape,
        dtype: "float16",
        kernel: i === 0 ? "fa2" : "fa3",
        time: samples([flops / teraflops / 1e6]),
        bytes: prefillBytes(shape),
        flops,
      };
    })
  );
}
