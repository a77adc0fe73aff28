/**
 * A small result of a bench, made up, with every kind of line that the report has to show.
 *
 * @module
 */

import {
  type BenchLine,
  type BenchResult,
  type BenchShape,
  RESULT_VERSION,
  samples,
} from "../../bench/results.ts";

const LIMITS = {
  readGbPerSecond: 4412,
  f32Tflops: 57.3,
  f16Tflops: 61.8,
  dispatchMicroseconds: 2.31,
  roundTripMicroseconds: 187.4,
};

const BYTES: Record<string, number> = {
  float16: 2,
  bfloat16: 2,
  float8_e4m3fn: 1,
  float8_e5m2: 1,
};

/** A shape by its sizes. */
export function shape(
  batch: number,
  qoLen: number,
  kvLen: number,
  numQoHeads: number,
  numKvHeads: number,
): BenchShape {
  return { batch, qoLen, kvLen, numQoHeads, numKvHeads, headDim: 128 };
}

/** A line of attention that reaches a share of its bound. */
export function line(
  sizes: BenchShape,
  dtype: string,
  share: number,
  more: Partial<BenchLine> = {},
): BenchLine {
  const { batch, qoLen, kvLen, numQoHeads, numKvHeads, headDim } = sizes;
  const bytes = 2 * batch * kvLen * numKvHeads * headDim * BYTES[dtype];
  const flops = 4 * batch * qoLen * kvLen * numQoHeads * headDim / (qoLen > 1 ? 2 : 1);
  const moving = bytes / LIMITS.readGbPerSecond / 1e3;
  const computing = flops / LIMITS.f32Tflops / 1e6;
  const time = Math.max(moving, computing) / share;
  return {
    family: qoLen > 1 ? "prefill" : "decode",
    library: "kvasir",
    shape: sizes,
    dtype,
    kernel: qoLen > 1 ? "prefill tiles 64x64" : "decode subgroups 8 rows",
    time: samples([0.985, 0.99, 1, 1.004, 1.03].map((factor) => factor * time)),
    wall: samples([1, 1.1, 1.3].map((factor) => factor * (time + 190))),
    bytes,
    flops,
    bound: moving > computing ? "bandwidth" : "arithmetic",
    share,
    fitsCache: bytes < 5e7,
    error: 4.9e-4,
    ...more,
  };
}

/** The result of a GPU; `speed` makes all its own kernels faster or slower. */
export function sample(speed = 1): BenchResult {
  const lines: BenchLine[] = [];
  const decodes = [[32, 32], [16, 8], [8, 8], [32, 8]];
  for (const [q, kv] of decodes) {
    for (const keys of [1024, 4096, 16384]) {
      const sizes = shape(64, 1, keys, q, kv);
      const reach = speed * (0.7 + 0.05 * Math.log2(keys / 1024)) / (q > kv ? 1.4 : 1);
      lines.push(line(sizes, "float16", reach));
      lines.push(line(sizes, "float8_e4m3fn", reach * 0.75));
      lines.push(line(sizes, "float8_e5m2", reach * 0.9));
      const peer = { library: "onnxruntime-web", kernel: "GroupQueryAttention" };
      lines.push(line(sizes, "float16", 0.12, peer));
    }
  }
  for (const tokens of [512, 2048, 8192]) {
    const sizes = shape(1, tokens, tokens, 32, 8);
    lines.push(line(sizes, "float16", speed * (0.4 + 0.05 * Math.log2(tokens / 512))));
    lines.push(line(sizes, "float16", 0.08, {
      library: "onnxruntime-web",
      kernel: "GroupQueryAttention",
    }));
    lines.push(line(sizes, "float16", 9.1, {
      library: "FlashInfer",
      kernel: "fa3",
      recorded: "FlashInfer 0.6 on an H200, flashinfer.md",
      wall: undefined,
      error: undefined,
      share: undefined,
      bound: undefined,
    }));
  }
  const codec = (kernel: string, time: number): BenchLine => ({
    family: "codec",
    library: "kvasir",
    shape: null,
    dtype: "float8_e4m3fn",
    kernel,
    time: samples([time, time * 1.02, time * 1.2]),
    bytes: 5 << 24,
    flops: 0,
  });
  lines.push(codec("encode", 9400 / speed), codec("encode, new array", 31000));
  lines.push({
    ...line(shape(1, 1, 4096, 32, 8), "float16", 0.01),
    family: "cpu decode",
    bound: undefined,
    share: undefined,
  });
  // As it comes out of a file, where what is undefined is not there at all.
  return JSON.parse(JSON.stringify({
    version: RESULT_VERSION,
    date: "2026-11-20T09:30:00.000Z",
    commit: "1234abc+",
    machine: "NVIDIA H200, rented",
    runtime: "deno 2.9.6",
    versions: { "@kvasir/attention": "0.1.0", "onnxruntime-web": "1.30.0" },
    adapter: {
      vendor: "4318",
      architecture: "hopper",
      device: "9013",
      description: "NVIDIA H200",
      isFallback: false,
    },
    shaderCompiler: "naga",
    limits: LIMITS,
    lines,
  }));
}
