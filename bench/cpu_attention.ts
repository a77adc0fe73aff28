/**
 * The CPU backend beside onnxruntime-web's WASM, one thread each, in one run.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { AttentionProblem } from "../src/attention_problem.ts";
import { WasmBackend } from "../src/cpu/backend.ts";
import { encodeValues } from "../src/cpu/codec.ts";
import { bytesPerElement, DTYPES } from "../src/dtype.ts";
import { openPeer, type PeerCase } from "./peers/ort_wasm.ts";
import { timeTogether } from "./timing.ts";

const HEAD_DIM = 128;
const CASES: readonly (PeerCase & { readonly name: string })[] = [
  { name: "decode, 4096 keys", tokens: 1, past: 4095, numQoHeads: 32, numKvHeads: 8 },
  { name: "decode, 1024 keys", tokens: 1, past: 1023, numQoHeads: 32, numKvHeads: 32 },
  { name: "causal prefill, 512", tokens: 512, past: 0, numQoHeads: 32, numKvHeads: 8 },
  { name: "causal prefill, 512", tokens: 512, past: 0, numQoHeads: 24, numKvHeads: 8 },
].map((sizes) => ({ ...sizes, headDim: HEAD_DIM }));

/** Prints the CPU backend's speed on every case, beside the peer's. */
export async function benchCpuAttention(): Promise<void> {
  for (const sizes of CASES) await benchCase(sizes);
}

async function benchCase(sizes: PeerCase & { readonly name: string }): Promise<void> {
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
  const peer = await openPeer(sizes, values);
  if (peer) works[peer.name] = peer.run;

  const expected = await works.float32();
  for (const [name, run] of Object.entries(works)) {
    if (!name.startsWith("float8")) checkClose(name, await run(), expected);
  }
  const timings = await timeTogether(works, tokens > 1 ? 5 : 31);
  const flops = 4 * numQoHeads * headDim * (tokens > 1 ? tokens * (2 * total - tokens) / 2 : total);
  const reference = timings.float32.median;
  for (const [name, { median, min, max }] of Object.entries(timings)) {
    const ratio = name === peer?.name ? "" : ratios(median, reference, peer, timings);
    console.log(
      `  ${name.padEnd(28)} ${median.toFixed(2).padStart(9)} ms (${min.toFixed(2)} to ` +
        `${max.toFixed(2)})  ${(flops / median / 1e6).toFixed(1).padStart(6)} GFLOP/s  ${ratio}`,
    );
  }
  await peer?.release();
}

function ratios(
  median: number,
  float32: number,
  peer: { name: string } | null,
  timings: Record<string, { median: number }>,
): string {
  const own = `${(median / float32).toFixed(2)} x the time of float32`;
  return peer ? `${(timings[peer.name].median / median).toFixed(1)} x the peer, ${own}` : own;
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
    qDtype: "float32",
    kvDtype: dtype,
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
    lseScale: 1,
  };
  return async () => {
    await backend.attend(problem, { q, k, v, out, lse: null });
    return new Float32Array((await backend.read(out)).buffer);
  };
}

/** A kernel that is wrong gets no time. */
function checkClose(name: string, actual: Float32Array, expected: Float32Array): void {
  for (let i = 0; i < expected.length; i++) {
    if (Math.abs(actual[i] - expected[i]) <= 2e-2) continue;
    throw new Error(`${name} is wrong at ${i}: ${actual[i]}, not ${expected[i]}`);
  }
}
