/**
 * The CPU backend beside onnxruntime-web's WASM, one thread each, in one run.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { AttentionProblem } from "../src/attention_problem.ts";
import { WasmBackend } from "../src/cpu/backend.ts";
import { decodeToFloat32, encodeValues } from "../src/cpu/codec.ts";
import { bytesPerElement, DTYPES } from "../src/dtype.ts";
import { openPeer, type PeerCase } from "./peers/ort_wasm.ts";
import type { BenchLine, Samples } from "./results.ts";
import { timeTogether } from "./timing.ts";

const HEAD_DIM = 128;
/** The reference and the kernels sum in float32, in another order. */
const TOLERANCE = 1e-3;
const CASES: readonly (PeerCase & { readonly name: string })[] = [
  { name: "decode, 4096 keys", tokens: 1, past: 4095, numQoHeads: 32, numKvHeads: 8 },
  { name: "decode, 1024 keys", tokens: 1, past: 1023, numQoHeads: 32, numKvHeads: 32 },
  { name: "causal prefill, 512", tokens: 512, past: 0, numQoHeads: 32, numKvHeads: 8 },
  { name: "causal prefill, 512", tokens: 512, past: 0, numQoHeads: 24, numKvHeads: 8 },
].map((sizes) => ({ ...sizes, headDim: HEAD_DIM }));

/** Prints the CPU backend's speed on every case, beside the peer's. */
export async function benchCpuAttention(
  options: { quick: boolean; peers: boolean },
): Promise<BenchLine[]> {
  const lines: BenchLine[] = [];
  for (const sizes of CASES) lines.push(...await benchCase(sizes, options));
  return lines;
}

async function benchCase(
  sizes: PeerCase & { readonly name: string },
  { quick, peers }: { quick: boolean; peers: boolean },
): Promise<BenchLine[]> {
  const { tokens, past, numQoHeads, numKvHeads, headDim } = sizes;
  const total = past + tokens;
  console.log(`\nCPU attention, ${sizes.name}, ${numQoHeads}/${numKvHeads} heads, D ${headDim}`);
  const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
  const values = {
    q: random(tokens * numQoHeads * headDim),
    k: random(numKvHeads * total * headDim),
    v: random(numKvHeads * total * headDim),
  };
  const backend = new WasmBackend("the bench");
  const works: Record<string, () => Promise<Float32Array>> = {};
  for (const dtype of DTYPES) works[dtype] = prepare(backend, dtype, sizes, values);
  const peer = peers ? await openPeer(sizes, values) : null;
  if (peer) works[peer.name] = peer.run;

  const errors: Record<string, number> = {};
  for (const [name, run] of Object.entries(works)) {
    const dtype = name === peer?.name ? "float32" : name as DType;
    const inputs = { q: values.q, k: rounded(values.k, dtype), v: rounded(values.v, dtype) };
    const expected = await prepare(backend, "float32", sizes, inputs)();
    errors[name] = largestDifference(await run(), expected);
    // A kernel that is wrong gets no time.
    if (!(errors[name] <= TOLERANCE)) throw new Error(`${name} is off by ${errors[name]}`);
  }
  const rounds = quick ? [2, 11] : [5, 31];
  const timings = await timeTogether(works, rounds[tokens > 1 ? 0 : 1]);
  await peer?.release();
  const lines = Object.entries(timings).map(([name, time]): BenchLine => {
    const isPeer = name === peer?.name;
    const dtype = isPeer ? "float32" : name as DType;
    const cache = 2 * total * numKvHeads * headDim * bytesPerElement(dtype);
    return {
      family: tokens > 1 ? "cpu prefill" : "cpu decode",
      library: isPeer ? "onnxruntime-web" : "kvasir",
      shape: { batch: 1, qoLen: tokens, kvLen: total, numQoHeads, numKvHeads, headDim },
      dtype,
      kernel: isPeer ? name : "WASM, one thread",
      time,
      bytes: cache + 2 * tokens * numQoHeads * headDim * 4,
      flops: 4 * numQoHeads * headDim * (tokens > 1 ? tokens * (2 * total - tokens) / 2 : total),
      error: errors[name],
    };
  });
  const [{ time: float32 }] = lines;
  const peerTime = lines.find(({ library }) => library !== "kvasir")?.time;
  for (const { library, kernel, dtype, time, flops } of lines) {
    const name = library === "kvasir" ? dtype : kernel;
    const ratio = library === "kvasir" ? ratios(time, float32, peerTime) : "";
    const ms = (microseconds: number) => (microseconds / 1000).toFixed(2);
    console.log(
      `  ${name.padEnd(28)} ${ms(time.median).padStart(9)} ms (${ms(time.min)} to ` +
        `${ms(time.max)})  ${(flops / time.median / 1e3).toFixed(1).padStart(6)} GFLOP/s  ${ratio}`,
    );
  }
  return lines;
}

function ratios({ median }: Samples, float32: Samples, peer: Samples | undefined): string {
  const own = `${(median / float32.median).toFixed(2)} x the time of float32`;
  return peer ? `${(peer.median / median).toFixed(1)} x the peer, ${own}` : own;
}

/** The values that a cache of `dtype` holds, in the dtype that is the reference. */
function rounded(values: Float32Array, dtype: DType): Float32Array {
  const bytes = new Uint8Array(values.length * bytesPerElement(dtype));
  encodeValues(values, dtype, { saturate: true }, (offset, chunk) => bytes.set(chunk, offset));
  return decodeToFloat32(bytes, dtype);
}

function largestDifference(actual: Float32Array, expected: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i] - expected[i]);
    // A NaN stays.
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

/** Uploads one request to a backend; the result runs attention and reads the output. */
function prepare(
  backend: WasmBackend,
  dtype: DType,
  { tokens, past, numQoHeads, numKvHeads, headDim }: PeerCase,
  values: { q: Float32Array; k: Float32Array; v: Float32Array },
): () => Promise<Float32Array> {
  const total = past + tokens;
  const store = (data: Float32Array, as: DType) => {
    const storage = backend.allocate(data.length * bytesPerElement(as), "bench");
    encodeValues(
      data,
      as,
      { saturate: true },
      (offset, bytes) => backend.write(storage, offset, bytes),
    );
    return storage;
  };
  const q = store(values.q, "float32");
  const k = store(values.k, dtype);
  const v = store(values.v, dtype);
  const out = backend.allocate(values.q.length * 4, "bench");
  const rows = { token: numQoHeads * headDim, head: headDim };
  // HND, as the peer keeps its cache.
  const cache = { page: numKvHeads * total * headDim, token: headDim, head: total * headDim };
  const problem: AttentionProblem = {
    numRequests: 1,
    numQoHeads,
    numKvHeads,
    headDim,
    headDimV: headDim,
    mask: null,
    variant: null,
    qDtype: "float32",
    kDtype: dtype,
    vDtype: dtype,
    outDtype: "float32",
    qStrides: rows,
    outStrides: rows,
    kStrides: cache,
    vStrides: cache,
    pageSize: total,
    requests: Uint32Array.of(0, tokens, total, 0),
    pageTable: null,
    causal: tokens > 1,
    windowLeft: null,
    logitScales: new Float32Array(numQoHeads).fill(1 / Math.sqrt(headDim)),
    outScales: new Float32Array(numQoHeads).fill(1),
    rope: null,
    alibiSlopes: null,
    logitsSoftCap: null,
    sinks: null,
    kvScales: null,
    lseScale: 1,
  };
  return async () => {
    await backend.attend(problem, { q, k, v, out, lse: null });
    return new Float32Array((await backend.read(out)).buffer);
  };
}
