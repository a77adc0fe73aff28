/**
 * The prefill family: opened on the device, and checked against the WASM backend on the first queries,
 * which see the first keys, and on the last, which see as much as any.
 *
 * @module
 */

import type { AttentionProblem } from "../../src/attention_problem.ts";
import type { Backend } from "../../src/backend.ts";
import { WasmBackend } from "../../src/cpu/backend.ts";
import { decodeToFloat32 } from "../../src/cpu/codec.ts";
import { KvasirDevice } from "../../src/device.ts";
import { singlePrefillWithKvCache } from "../../src/prefill.ts";
import { singlePrefill } from "../../src/prefill_problem.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { GpuStorage } from "../../src/webgpu/buffers.ts";
import { attentionDispatches, compileAttention } from "../../src/webgpu/attention.ts";
import { planPrefill } from "../../src/webgpu/prefill_plan.ts";
import type { BenchShape } from "../results.ts";
import type { GpuCase, OpenCase, Tuning } from "./family.ts";
import { BLOCK_VALUES, fillOnGpu, fillOnHost } from "./inputs.ts";
import { prefillBytes, prefillFlops, type PrefillProblem } from "./prefill_cases.ts";

/** Rounding to float16, and 1e-3 of slack: a wrong kernel is off by far more. */
const TOLERANCE = 3e-3;
/** Where in the endless values q, k and v begin. */
const FROM = { q: 4096, k: 0, v: BLOCK_VALUES / 2 };
/** Queries that are checked at the beginning and at the end. */
const CHECKED = { first: 64, last: 4 };

/** A case of the family. */
export function prefillCase(wanted: PrefillProblem): GpuCase {
  return {
    family: "prefill",
    shape: wanted.shape,
    dtype: wanted.dtype,
    bytes: prefillBytes(wanted.shape, wanted.dtype),
    flops: prefillFlops(wanted.shape),
    open: (backend, tuning) => openPrefill(backend, wanted, tuning),
  };
}

/** Elements of q, k, v and out. */
function sizesOf(
  { qoLen, kvLen, numQoHeads, numKvHeads, headDim, headDimV = headDim }: BenchShape,
) {
  return {
    q: qoLen * numQoHeads * headDim,
    k: kvLen * numKvHeads * headDim,
    v: kvLen * numKvHeads * headDimV,
    out: qoLen * numQoHeads * headDimV,
  };
}

async function openPrefill(
  backend: WebGpuBackend,
  wanted: PrefillProblem,
  tuning: Tuning | undefined,
): Promise<OpenCase> {
  const { shape: s, dtype } = wanted;
  const temporary: GPUBuffer[] = [];
  const owned: GpuStorage[] = [];
  const fill = async (
    ...args: [elements: number, dtype: PrefillProblem["dtype"], from: number]
  ) => {
    const storage = await fillOnGpu(backend, ...args);
    owned.push(storage);
    return storage;
  };
  const release = () => {
    for (const storage of owned) storage.release();
    for (const buffer of temporary) buffer.destroy();
  };
  try {
    const sizes = sizesOf(s);
    const q = await fill(sizes.q, "float16", FROM.q);
    const k = await fill(sizes.k, dtype, FROM.k);
    const v = await fill(sizes.v, dtype, FROM.v);
    const out = await fill(sizes.out, "float16", FROM.v);
    const problem = problemOf(wanted);
    const plan = planPrefill(problem, backend.capabilities, tuning);
    const kernels = await compileAttention(backend, plan);
    const operands = { q, k, v, out, lse: null };
    const dispatches = attentionDispatches(backend, plan, kernels, problem, operands, temporary);
    const device = new KvasirDevice(backend);
    const { headDim, headDimV = headDim } = s;
    return {
      kernel: plan.kernel.name,
      // The cache is read again and again within a call: copies would change nothing.
      calls: [dispatches],
      check: () => checkAgainstWasm(backend, out, wanted),
      callAndRead: s.pageSize !== undefined ? null : async () => {
        const { buffer: qBuffer } = q;
        using qTensor = device.tensorFromBuffer(
          qBuffer,
          [s.qoLen, s.numQoHeads, headDim],
          "float16",
        );
        using kTensor = device.tensorFromBuffer(k.buffer, [s.kvLen, s.numKvHeads, headDim], dtype);
        using vTensor = device.tensorFromBuffer(v.buffer, [s.kvLen, s.numKvHeads, headDimV], dtype);
        const options = { causal: true, windowLeft: s.windowLeft };
        using result = await singlePrefillWithKvCache(qTensor, kTensor, vTensor, options);
        await result.read();
      },
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** With pages, which follow each other here, rows lie where they do without. */
function problemOf({ shape: s, dtype }: PrefillProblem): AttentionProblem {
  const { headDim, headDimV = headDim, pageSize } = s;
  const problem = wholeProblem(s, dtype);
  if (pageSize === undefined) return problem;
  const pages = (dim: number) => ({ page: pageSize * s.numKvHeads * dim });
  return {
    ...problem,
    pageSize,
    pageTable: Uint32Array.from({ length: s.kvLen / pageSize }, (_, page) => page),
    kStrides: { ...problem.kStrides, ...pages(headDim) },
    vStrides: { ...problem.vStrides, ...pages(headDimV) },
  };
}

function wholeProblem(s: BenchShape, dtype: PrefillProblem["dtype"]): AttentionProblem {
  const { headDim, headDimV = headDim } = s;
  return singlePrefill(
    { shape: [s.qoLen, s.numQoHeads, headDim], dtype: "float16" },
    { shape: [s.kvLen, s.numKvHeads, headDim], dtype },
    { shape: [s.kvLen, s.numKvHeads, headDimV], dtype },
    { causal: true, windowLeft: s.windowLeft },
  ).problem;
}

async function checkAgainstWasm(
  backend: Backend,
  out: GpuStorage,
  wanted: PrefillProblem,
): Promise<number> {
  const { shape: s } = wanted;
  const actual = decodeToFloat32(await backend.read(out), "float16");
  const row = s.numQoHeads * (s.headDimV ?? s.headDim);
  const last = Math.min(CHECKED.last, s.qoLen);
  const parts = [{ qoLen: last, kvLen: s.kvLen, query: s.qoLen - last }];
  if (s.qoLen === s.kvLen) {
    const first = Math.min(CHECKED.first, s.qoLen);
    parts.push({ qoLen: first, kvLen: first, query: 0 });
  }
  let largest = 0;
  for (const { qoLen, kvLen, query } of parts) {
    const expected = await answerOfWasm({ ...wanted, shape: { ...s, qoLen, kvLen } }, query);
    expected.forEach((value, i) => {
      const got = actual[query * row + i];
      const difference = Math.abs(got - value);
      if (!(difference <= TOLERANCE)) {
        throw new Error(`query ${query + Math.floor(i / row)} is wrong: ${got}, not ${value}`);
      }
      largest = Math.max(largest, difference);
    });
  }
  return largest;
}

/** What the WASM backend computes for queries from `query` on. */
async function answerOfWasm(wanted: PrefillProblem, query: number): Promise<Float32Array> {
  const { shape: s, dtype } = wanted;
  const sizes = sizesOf(s);
  const wasm: Backend = new WasmBackend("the bench");
  const operands = {
    q: fillOnHost(wasm, sizes.q, "float16", FROM.q + query * s.numQoHeads * s.headDim),
    k: fillOnHost(wasm, sizes.k, dtype, FROM.k),
    v: fillOnHost(wasm, sizes.v, dtype, FROM.v),
    out: wasm.allocate(sizes.out * 2, "bench"),
  };
  await wasm.attend(problemOf(wanted), { ...operands, lse: null });
  const answer = decodeToFloat32(await wasm.read(operands.out), "float16");
  for (const storage of Object.values(operands)) storage.release();
  return answer;
}
