/**
 * Decode on the GPU: checked against the WASM backend on the same inputs, then timed.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { AttentionProblem } from "../../src/attention_problem.ts";
import type { Backend, Storage } from "../../src/backend.ts";
import { WasmBackend } from "../../src/cpu/backend.ts";
import { decodeToFloat32, encodeValues } from "../../src/cpu/codec.ts";
import { paddedDecode } from "../../src/decode_problem.ts";
import { bytesPerElement } from "../../src/dtype.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { decodeResources } from "../../src/webgpu/decode.ts";
import { type DecodeTuning, planDecode } from "../../src/webgpu/decode_plan.ts";
import type { BenchLine, BenchShape, MeasuredLimits } from "../results.ts";
import type { GpuTimer, TimingBudget } from "./timing.ts";

/** A decode case. */
export interface DecodeCase {
  readonly shape: BenchShape;
  readonly kvDtype: DType;
}

const HEAD_DIM = 128;
/** More than any cache holds: what is read in turn is read from memory. */
const LARGER_THAN_CACHE = 256 * 2 ** 20;
/** Rounding to float16, and 1e-3 of slack: a wrong kernel is off by far more. */
const TOLERANCE = 2e-3;

function shape(
  batch: number,
  kvLen: number,
  numQoHeads: number,
  numKvHeads: number,
): BenchShape {
  return { batch, qoLen: 1, kvLen, numQoHeads, numKvHeads, headDim: HEAD_DIM };
}

const DTYPES = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const;

/** The shapes of FlashInfer's own measurements (bench/peers/flashinfer.ts). */
export const DECODE_CASES: readonly DecodeCase[] = [
  shape(64, 4096, 8, 8),
  shape(64, 4096, 16, 8),
  shape(64, 4096, 24, 8),
  shape(64, 4096, 32, 8),
  shape(64, 4096, 64, 8),
  shape(16, 1024, 32, 32),
  shape(64, 1024, 32, 8),
  shape(256, 1024, 32, 8),
  shape(1, 8192, 32, 8),
  shape(1, 131072, 32, 8),
].flatMap((shape) => DTYPES.map((kvDtype) => ({ shape, kvDtype })));

/** For software adapters. */
export const SMALL_DECODE_CASES: readonly DecodeCase[] = [
  shape(2, 256, 4, 4),
  shape(2, 256, 8, 2),
].flatMap((shape) => DTYPES.map((kvDtype) => ({ shape, kvDtype })));

/** Bytes that decode has to move: q, k, v and out. */
export function decodeBytes({ shape: s, kvDtype }: DecodeCase): number {
  const cache = 2 * s.batch * s.kvLen * s.numKvHeads * s.headDim * bytesPerElement(kvDtype);
  return cache + 2 * s.batch * s.numQoHeads * s.headDim * 2;
}

/** Operations of decode, as FlashInfer counts them. */
export function decodeFlops({ shape: s }: DecodeCase): number {
  return 4 * s.batch * s.numQoHeads * s.kvLen * s.headDim;
}

/** What a case needs on a device; one copy, or several where one would fit a cache. */
interface Copy {
  readonly q: Storage;
  readonly k: Storage;
  readonly v: Storage;
  readonly out: Storage;
}

/** Checks and times one case. */
export async function benchDecode(
  backend: WebGpuBackend,
  timer: GpuTimer,
  wanted: DecodeCase,
  limits: MeasuredLimits,
  budget: TimingBudget,
  tuning?: Partial<DecodeTuning>,
): Promise<BenchLine> {
  const problem = problemOf(wanted);
  const plan = planDecode(problem, backend.capabilities, tuning);
  const kernel = await backend.kernels.get(plan.kernel);
  const bytes = decodeBytes(wanted);
  const copies: Copy[] = [];
  const temporary: GPUBuffer[] = [];
  try {
    const count = Math.max(1, Math.min(8, Math.ceil(LARGER_THAN_CACHE / bytes)));
    for (let i = 0; i < count; i++) copies.push(upload(backend, wanted));
    const dispatches = copies.map((copy) => ({
      kernel,
      resources: decodeResources(
        backend.device,
        plan.params,
        problem,
        { ...copy, lse: null },
        temporary,
      ),
      grid: plan.grid,
    }));
    // The first pass writes every copy's output; the check looks at one.
    const once = { passes: 1, passMilliseconds: 0, warmMilliseconds: 0 };
    await timer.time(dispatches, once);
    const error = await checkAgainstWasm(backend, copies[0].out, wanted);
    const time = await timer.time(dispatches, budget);
    const flops = decodeFlops(wanted);
    return {
      family: "decode",
      library: "kvasir",
      shape: wanted.shape,
      dtype: wanted.kvDtype,
      kernel: kernel.name,
      time,
      bytes,
      flops,
      ...boundOf(bytes, flops, time.median, limits),
      fitsCache: bytes * count < LARGER_THAN_CACHE,
      error,
    };
  } finally {
    for (const copy of copies) for (const storage of Object.values(copy)) storage.release();
    for (const buffer of temporary) buffer.destroy();
  }
}

/** What bounds a kernel on this machine, and the share of it that `microseconds` reach. */
export function boundOf(
  bytes: number,
  flops: number,
  microseconds: number,
  { readGbPerSecond, f32Tflops }: MeasuredLimits,
): { bound: "bandwidth" | "arithmetic"; share: number } {
  const moving = bytes / readGbPerSecond / 1000;
  const computing = flops / f32Tflops / 1e6;
  return {
    bound: moving >= computing ? "bandwidth" : "arithmetic",
    share: Math.max(moving, computing) / microseconds,
  };
}

function problemOf({ shape: s, kvDtype }: DecodeCase): AttentionProblem {
  const kv = { shape: [s.batch, s.kvLen, s.numKvHeads, s.headDim], dtype: kvDtype };
  const q = { shape: [s.batch, s.numQoHeads, s.headDim], dtype: "float16" as const };
  return paddedDecode(q, kv, kv, {}).problem;
}

/** Requests that the check computes on the CPU: the first and the last few would do the same. */
const CHECKED_REQUESTS = 2;

/** A cache is made of one block of values, over and over; k and v begin at different places in it. */
const BLOCK_VALUES = 1 << 20;
const blocks = new Map<DType, Uint8Array>();

function block(dtype: DType): Uint8Array {
  let bytes = blocks.get(dtype);
  if (!bytes) {
    let state = 1;
    const uniform = () => (state = Math.imul(state, 1664525) + 1013904223 | 0) / 2 ** 31;
    const values = Float32Array.from({ length: BLOCK_VALUES }, () => 2 * uniform());
    const made = new Uint8Array(BLOCK_VALUES * bytesPerElement(dtype));
    encodeValues(values, dtype, { saturate: true }, (offset, chunk) => made.set(chunk, offset));
    blocks.set(dtype, bytes = made);
  }
  return bytes;
}

function fill(backend: Backend, elements: number, dtype: DType, from: number): Storage {
  const length = elements * bytesPerElement(dtype);
  const storage = backend.allocate(length, "bench");
  const source = block(dtype);
  let filled = 0;
  let at = from * bytesPerElement(dtype) % source.length;
  while (filled < length) {
    const part = source.subarray(at, at + Math.min(source.length - at, length - filled));
    backend.write(storage, filled, part);
    filled += part.length;
    at = 0;
  }
  return storage;
}

function upload(
  backend: Backend,
  { shape: s, kvDtype }: DecodeCase,
  batch: number = s.batch,
): Copy {
  const kv = batch * s.kvLen * s.numKvHeads * s.headDim;
  const rows = batch * s.numQoHeads * s.headDim;
  return {
    q: fill(backend, rows, "float16", 4096),
    k: fill(backend, kv, kvDtype, 0),
    v: fill(backend, kv, kvDtype, BLOCK_VALUES / 2),
    out: backend.allocate(rows * 2, "bench"),
  };
}

/** The largest difference of the first requests from the WASM backend's. A wrong kernel gets no time. */
async function checkAgainstWasm(
  backend: WebGpuBackend,
  out: Storage,
  wanted: DecodeCase,
): Promise<number> {
  const batch = Math.min(CHECKED_REQUESTS, wanted.shape.batch);
  const part = { ...wanted, shape: { ...wanted.shape, batch } };
  const wasm: Backend = new WasmBackend("the bench");
  const copy = upload(wasm, part);
  await wasm.attend(problemOf(part), { ...copy, lse: null });
  const expected = decodeToFloat32(await wasm.read(copy.out), "float16");
  const gpu: Backend = backend;
  const actual = decodeToFloat32(await gpu.read(out), "float16");
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i] - expected[i]);
    if (!(difference <= TOLERANCE)) {
      throw new Error(`decode is wrong at ${i}: ${actual[i]}, not ${expected[i]}`);
    }
    largest = Math.max(largest, difference);
  }
  return largest;
}
