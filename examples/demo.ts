/**
 * Decode attention over a float16 and over an FP8 KV cache, on WebGPU where there is an adapter and
 * always on WASM, checked against a float64 computation. Run it with `deno task demo`.
 */

import * as kvasir from "@kvasir/attention";
import { float64Decode, largestDifference, normals } from "./demo_reference.ts";

const BATCH = 16;
const LENGTH = 1024;
const HEADS = 32;
const HEAD_DIM = 128;
const Q_SHAPE = [BATCH, HEADS, HEAD_DIM];
const KV_SHAPE = [BATCH, LENGTH, HEADS, HEAD_DIM];
const KV_ELEMENTS = BATCH * LENGTH * HEADS * HEAD_DIM;
/** Half a unit in the last place of the float16 output, whose magnitudes stay below 1, and change. */
const TOLERANCE = 2 ** -12 + 1e-6;
const REPEATS = 5;
const MILLISECONDS = 500;

/** One line of the table. */
interface Row {
  backend: string;
  cache: string;
  kvBytes: number;
  microseconds: number;
  clock: string;
  error: number;
  quantisation: number;
}

const gpuTimes: number[] = [];
const gpu = await openGpu();
using wasm = await kvasir.openDevice({ backend: "wasm" });
describe(wasm);

console.log(`\nq float16 [${Q_SHAPE}], k and v [${KV_SHAPE}], random normal values`);
const qValues = normals(BATCH * HEADS * HEAD_DIM, 1);
const kValues = new Float32Array(KV_ELEMENTS);
const vValues = new Float32Array(KV_ELEMENTS);
const kCodes = new Uint8Array(KV_ELEMENTS);
const vCodes = new Uint8Array(KV_ELEMENTS);
encodeCache();

const shape = { batch: BATCH, length: LENGTH, heads: HEADS, headDim: HEAD_DIM };
const q = wasm.tensor(qValues, Q_SHAPE, "float16");
const qRounded = await q.read();
const unquantised = float64Decode(qRounded, kValues, vValues, shape);

const rows: Row[] = [];
const outputs = new Map<string, Float32Array>();
for (const dtype of ["float16", "float8_e4m3fn"] as const) {
  const isFp8 = dtype === "float8_e4m3fn";
  // The same bytes go to every device.
  const kBytes = isFp8 ? kCodes : await storedBytes(kValues, dtype);
  const vBytes = isFp8 ? vCodes : await storedBytes(vValues, dtype);
  for (const device of gpu ? [gpu, wasm] : [wasm]) {
    using q = device.tensor(qValues, Q_SHAPE, "float16");
    using k = device.tensorFromBytes(kBytes, KV_SHAPE, dtype);
    using v = device.tensorFromBytes(vBytes, KV_SHAPE, dtype);
    const { values, microseconds, clock } = await timed(device, q, k, v);
    const expected = float64Decode(qRounded, await k.read(), await v.read(), shape);
    rows.push({
      backend: device.backend,
      cache: dtype,
      kvBytes: kBytes.byteLength + vBytes.byteLength,
      microseconds,
      clock,
      error: largestDifference(values, expected),
      quantisation: largestDifference(values, unquantised),
    });
    outputs.set(`${device.backend} ${dtype}`, values);
  }
}

for (const { family, variant, reason } of gpu?.report.kernels ?? []) {
  if (family === "decode") console.log(`kernel ${variant}\n  because ${reason}`);
}
printTable();
const wrong = rows.filter(({ error }) => !(error <= TOLERANCE));
if (gpu) {
  const between = ["float16", "float8_e4m3fn"].map((dtype) =>
    largestDifference(outputs.get(`webgpu ${dtype}`)!, outputs.get(`wasm ${dtype}`)!)
  );
  console.log(`\nWebGPU and WASM differ by at most ${Math.max(...between).toExponential(1)}.`);
}
gpu?.destroy();
if (wrong.length > 0) {
  console.error(`Wrong: more than ${TOLERANCE.toExponential(1)} from float64.`);
  Deno.exit(1);
}
console.log(`Every output is within ${TOLERANCE.toExponential(1)} of float64: right.`);

/** A WebGPU device, or null after one sentence that says what would help. */
async function openGpu(): Promise<kvasir.Device | null> {
  try {
    const device = await kvasir.openDevice({
      backend: "webgpu",
      onProfile: ({ microseconds }) => gpuTimes.push(microseconds),
    });
    describe(device);
    return device;
  } catch (error) {
    if (!(error instanceof kvasir.NoAdapterError)) throw error;
    console.log(`No GPU: ${error.got}. ${error.hint}`);
    return null;
  }
}

function describe({ backend, report }: kvasir.Device): void {
  console.log(`${backend}: ${report.description} (${report.features.join(", ")})`);
  console.log(`  because ${report.reason}`);
}

/** Fills the cache with normal values and encodes it, a slice at a time. */
function encodeCache(): void {
  const slice = 1 << 20;
  let milliseconds = 0;
  for (let start = 0; start < KV_ELEMENTS; start += slice) {
    for (const [values, codes, seed] of [[kValues, kCodes, 2], [vValues, vCodes, 3]] as const) {
      values.set(normals(slice, seed + start), start);
      const begin = performance.now();
      codes.set(kvasir.encodeFp8(values.subarray(start, start + slice), "float8_e4m3fn"), start);
      milliseconds += performance.now() - begin;
    }
    progress(`making and encoding the cache: ${Math.round(100 * (start + slice) / KV_ELEMENTS)} %`);
  }
  const rate = 2 * KV_ELEMENTS / milliseconds / 1e6;
  progress(`encoded ${2 * KV_ELEMENTS} values to e4m3 at ${rate.toFixed(2)} billion a second\n`);
}

/** A line that replaces the one before, on a terminal; elsewhere only finished lines. */
function progress(text: string): void {
  if (Deno.stdout.isTerminal()) Deno.stdout.writeSync(new TextEncoder().encode(`\r\x1b[K${text}`));
  else if (text.endsWith("\n")) console.log(text.trimEnd());
}

async function storedBytes(values: Float32Array, dtype: kvasir.DType): Promise<Uint8Array> {
  using tensor = wasm.tensor(values, KV_SHAPE, dtype);
  return await tensor.readBytes();
}

/**
 * The output and the median time: the GPU's own where it can be had, else of whole calls. Calls follow
 * each other for a while, since an idle GPU takes time to reach its speed.
 */
async function timed(
  device: kvasir.Device,
  q: kvasir.Tensor,
  k: kvasir.Tensor,
  v: kvasir.Tensor,
): Promise<{ values: Float32Array; microseconds: number; clock: string }> {
  const call = () =>
    kvasir.batchDecodeWithPaddedKvCache(q, k, v, { kvLayout: "NHD", posEncodingMode: "NONE" });
  using first = await call();
  const values = await first.read();
  const isGpuTime = device.report.features.includes("timestamp-query");
  gpuTimes.length = 0;
  const wall: number[] = [];
  const start = performance.now();
  while (wall.length < REPEATS || performance.now() - start < MILLISECONDS) {
    const begin = performance.now();
    using out = await call();
    if (!isGpuTime) await out.read();
    wall.push(1000 * (performance.now() - begin));
  }
  using last = await call();
  await last.read(); // what was submitted before has run then, and its times have come
  const times = (isGpuTime ? gpuTimes : wall).slice().sort((a, b) => a - b);
  return { values, microseconds: times[times.length >> 1], clock: isGpuTime ? "GPU" : "wall" };
}

function printTable(): void {
  const header = [
    "backend",
    "cache",
    "KV MiB",
    "time, ms",
    "clock",
    "off float64",
    "off unquantised",
  ];
  const lines = rows.map((row) => [
    row.backend,
    row.cache,
    (row.kvBytes / 2 ** 20).toFixed(0),
    (row.microseconds / 1000).toFixed(row.microseconds < 10_000 ? 3 : 0),
    row.clock,
    row.error.toExponential(1),
    row.quantisation.toExponential(1),
  ]);
  const widths = header.map((name, i) => Math.max(name.length, ...lines.map((l) => l[i].length)));
  console.log();
  for (const line of [header, ...lines]) {
    console.log(
      line.map((cell, i) => i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  "),
    );
  }
}
