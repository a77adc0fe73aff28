/**
 * The decode family: opened on the device with copies that no cache holds, and checked against the
 * WASM backend on the same inputs.
 *
 * @module
 */

import {
  batchDecodeWithPaddedKvCache,
  BatchDecodeWithPagedKvCache,
  type PagedDecodePlan,
} from "@kvasir/attention";
import type { AttentionProblem } from "../../src/attention_problem.ts";
import type { Backend, Storage } from "../../src/backend.ts";
import { cachePages } from "../../src/cache_pages.ts";
import { WasmBackend } from "../../src/cpu/backend.ts";
import { decodeToFloat32 } from "../../src/cpu/codec.ts";
import { paddedDecode } from "../../src/decode_problem.ts";
import { KvasirDevice } from "../../src/device.ts";
import { bytesPerElement, type DType, isFp8DType } from "../../src/dtype.ts";
import { overCache, pagedDecode } from "../../src/paged_problem.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { GpuStorage } from "../../src/webgpu/buffers.ts";
import { decodeCall } from "./decode_call.ts";
import { decodeBytes, decodeFlops, type DecodeProblem } from "./decode_cases.ts";
import type { BenchShape } from "../results.ts";
import { copiesOf, overCopy } from "./copies.ts";
import type { GpuCase, OpenCase, Tuning } from "./family.ts";
import { BLOCK_VALUES, fillOnGpu, fillOnHost, valuesOf } from "./inputs.ts";

/** Rounding to float16, and 1e-3 of slack: a wrong kernel is off by far more. */
const TOLERANCE = 2e-3;
/** Where in the endless values q, k and v begin. */
const FROM = { q: 4096, k: 0, v: BLOCK_VALUES / 2, scales: 8192 };

/** A case of the family. */
export function decodeCase(wanted: DecodeProblem): GpuCase {
  return {
    family: "decode",
    shape: wanted.shape,
    dtype: wanted.dtype,
    bytes: decodeBytes(wanted),
    flops: decodeFlops(wanted),
    open: (backend, tuning) => openDecode(backend, wanted, tuning),
  };
}

/** K and v of one copy, with the scales of its tokens. */
interface Cache {
  readonly k: GpuStorage;
  readonly v: GpuStorage;
  readonly kvScales?: GpuStorage;
}

const PARTS = ["k", "v", "kvScales"] as const;

async function openDecode(
  backend: WebGpuBackend,
  wanted: DecodeProblem,
  tuning: Tuning | undefined,
): Promise<OpenCase> {
  const { shape: s, dtype, seqLens } = wanted;
  const temporary: GPUBuffer[] = [];
  const owned: GpuStorage[] = [];
  const fill = async (...args: [elements: number, dtype: DecodeProblem["dtype"], from: number]) => {
    const storage = await fillOnGpu(backend, ...args);
    owned.push(storage);
    return storage;
  };
  let planned: BatchDecodeWithPagedKvCache | null = null;
  const release = () => {
    planned?.destroy();
    for (const storage of owned) storage.release();
    for (const buffer of temporary) buffer.destroy();
  };
  try {
    const rows = s.batch * s.numQoHeads * s.headDim;
    const kv = s.batch * s.kvLen * s.numKvHeads * s.headDim;
    const q = await fill(rows, queriesOf(s), FROM.q);
    const out = await fill(rows, queriesOf(s), FROM.v);
    const caches: Cache[] = [];
    for (let i = 0; i < copiesOf(decodeBytes(wanted)); i++) {
      caches.push({
        k: await fill(kv, dtype, FROM.k),
        v: await fill(kv, vDtypeOf(wanted), FROM.v),
        ...(s.scales === "tokens"
          ? { kvScales: await fill(2 * kv / s.headDim, "float32", FROM.scales) }
          : {}),
      });
    }
    const problem = problemOf(wanted);
    const operands = { q, ...caches[0], out, lse: null };
    const dispatches = await decodeCall(backend, problem, operands, temporary, tuning);
    const device = new KvasirDevice(backend);
    const { pageSize = s.kvLen } = s;
    const pages = s.batch * s.kvLen / pageSize;
    const kvShape = [pages, pageSize, s.numKvHeads, s.headDim];
    if (s.pageSize !== undefined) {
      planned = new BatchDecodeWithPagedKvCache(device);
      planned.plan(pagedPlanOf(wanted));
    }
    return {
      kernel: dispatches[0].kernel.name,
      calls: caches.map((cache) =>
        overCopy(
          dispatches,
          PARTS.flatMap((part): [GPUBuffer, GPUBuffer][] => {
            const [first, own] = [caches[0][part], cache[part]];
            return first && own ? [[first.buffer, own.buffer]] : [];
          }),
        )
      ),
      check: () => checkAgainstWasm(backend, out, wanted),
      async callAndRead() {
        using qTensor = device.tensorFromBuffer(
          q.buffer,
          [s.batch, s.numQoHeads, s.headDim],
          queriesOf(s),
        );
        using k = device.tensorFromBuffer(caches[0].k.buffer, kvShape, dtype);
        using v = device.tensorFromBuffer(caches[0].v.buffer, kvShape, vDtypeOf(wanted));
        const { kvScales: scales } = caches[0];
        using kvScales = scales &&
          device.tensorFromBuffer(scales.buffer, scalesShape(s), "float32");
        if (planned) {
          using result = await planned.run(qTensor, [k, v], { kvScales });
          await result.read();
          return;
        }
        using result = await batchDecodeWithPaddedKvCache(qTensor, k, v, {
          seqLens,
          kvScales,
          outDtype: queriesOf(s),
          ...headScales(s),
        });
        await result.read();
      },
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** The shape of tokens' scales. */
function scalesShape({ batch, kvLen, numKvHeads, pageSize = kvLen }: BenchShape): number[] {
  return [batch * kvLen / pageSize, numKvHeads, pageSize, 2];
}

/** The dtype of q and the output. */
function queriesOf({ queries }: BenchShape): DType {
  return queries ?? "float16";
}

/** The dtype of v. */
function vDtypeOf({ shape: { vDtype }, dtype }: DecodeProblem): DType {
  return vDtype ?? dtype;
}

/** Scales of heads, where the case is about them. */
function headScales({ scales, numKvHeads }: BenchShape) {
  if (scales !== "heads") return {};
  const each = Array.from({ length: numKvHeads }, (_, head) => 0.5 + head / numKvHeads);
  return { kScale: each, vScale: each.toReversed() };
}

function problemOf(wanted: DecodeProblem): AttentionProblem {
  const { shape: s, dtype, seqLens } = wanted;
  if (s.pageSize !== undefined) {
    const shape = [1, s.pageSize, s.numKvHeads, s.headDim];
    const pair = [{ shape, dtype }, { shape, dtype: vDtypeOf(wanted) }];
    return overCache(pagedDecode(pagedPlanOf(wanted), "NHD"), cachePages(pair, "NHD"));
  }
  const k = { shape: [s.batch, s.kvLen, s.numKvHeads, s.headDim], dtype };
  const v = { ...k, dtype: vDtypeOf(wanted) };
  const q = { shape: [s.batch, s.numQoHeads, s.headDim], dtype: queriesOf(s) };
  const kvScales = s.scales === "tokens"
    ? { shape: scalesShape(s), dtype: "float32" as const }
    : undefined;
  const options = { seqLens, kvScales, outDtype: q.dtype, ...headScales(s) };
  return paddedDecode(q, k, v, options).problem;
}

/** A request's pages, from all over the cache. */
function pageOf(
  { batch, kvLen, pageSize = kvLen }: BenchShape,
  request: number,
  i: number,
): number {
  const pages = kvLen / pageSize;
  return ((request * pages + i) * 7919 + 13) % (batch * pages);
}

/** The plan of a paged case; k and v are a pair. */
function pagedPlanOf(wanted: DecodeProblem): PagedDecodePlan {
  const { shape: s, dtype } = wanted;
  const { batch, kvLen, pageSize = kvLen } = s;
  const pages = kvLen / pageSize;
  return {
    indptr: Array.from({ length: batch + 1 }, (_, request) => request * pages),
    indices: Array.from(
      { length: batch * pages },
      (_, i) => pageOf(s, Math.floor(i / pages), i % pages),
    ),
    lastPageLen: new Array(batch).fill(pageSize),
    numQoHeads: s.numQoHeads,
    numKvHeads: s.numKvHeads,
    headDim: s.headDim,
    pageSize,
    qDtype: queriesOf(s),
    outDtype: queriesOf(s),
    kvDtype: { k: dtype, v: vDtypeOf(wanted) },
    kvScales: s.scales === "tokens" ? "token" : "none",
    ...headScales(s),
  };
}

/**
 * The largest difference of the first and the last request from the WASM backend's; the others go the
 * same way between these.
 */
async function checkAgainstWasm(
  backend: WebGpuBackend,
  out: Storage,
  wanted: DecodeProblem,
): Promise<number> {
  const gpu: Backend = backend;
  const dtype = queriesOf(wanted.shape);
  const actual = decodeToFloat32(await gpu.read(out), dtype);
  // FP8 may be rounded to the next number, up to a quarter away.
  const step = isFp8DType(dtype) ? 0.25 : 0;
  const rows = wanted.shape.numQoHeads * wanted.shape.headDim;
  let largest = 0;
  for (const request of new Set([0, wanted.shape.batch - 1])) {
    const expected = await answerOfWasm(wanted, request);
    for (let i = 0; i < rows; i++) {
      const difference = Math.abs(actual[request * rows + i] - expected[i]);
      if (!(difference <= TOLERANCE + step * Math.abs(expected[i]))) {
        const got = `${actual[request * rows + i]}, not ${expected[i]}`;
        throw new Error(`request ${request} is wrong at ${i}: ${got}`);
      }
      largest = Math.max(largest, difference);
    }
  }
  return largest;
}

/** What the WASM backend computes for one request. */
async function answerOfWasm(wanted: DecodeProblem, request: number): Promise<Float32Array> {
  const { shape: s, dtype, seqLens } = wanted;
  const rows = s.numQoHeads * s.headDim;
  const stride = s.kvLen * s.numKvHeads * s.headDim;
  const kvLen = seqLens?.[request] ?? s.kvLen;
  const kv = kvLen * s.numKvHeads * s.headDim;
  const wasm: Backend = new WasmBackend("the bench");
  const operands = {
    q: fillOnHost(wasm, rows, queriesOf(s), FROM.q + request * rows),
    k: await cacheOnHost(wasm, wanted, request, kv, FROM.k + request * stride),
    v: await cacheOnHost(
      wasm,
      { ...wanted, dtype: vDtypeOf(wanted) },
      request,
      kv,
      FROM.v + request * stride,
    ),
    ...(s.scales === "tokens" ? { kvScales: scalesOnHost(wasm, s, request, kvLen) } : {}),
    out: wasm.allocate(rows * bytesPerElement(queriesOf(s)), "bench"),
  };
  const shape = { ...s, batch: 1, kvLen, pageSize: undefined };
  await wasm.attend(problemOf({ shape, dtype }), { ...operands, lse: null });
  const answer = decodeToFloat32(await wasm.read(operands.out), queriesOf(s));
  for (const storage of Object.values(operands)) storage.release();
  return answer;
}

/** The scales of one request's tokens, `[heads, kvLen, 2]`. */
function scalesOnHost(wasm: Backend, s: BenchShape, request: number, kvLen: number): Storage {
  const { pageSize = s.kvLen, numKvHeads } = s;
  const page = 2 * numKvHeads * pageSize;
  const scales = new Float32Array(2 * numKvHeads * kvLen);
  for (let first = 0; first < kvLen; first += pageSize) {
    const number = s.pageSize === undefined ? request : pageOf(s, request, first / pageSize);
    const values = valuesOf(page, "float32", FROM.scales + number * page);
    const count = Math.min(pageSize, kvLen - first);
    for (let head = 0; head < numKvHeads; head++) {
      const begin = 2 * head * pageSize;
      scales.set(values.subarray(begin, begin + 2 * count), 2 * (head * kvLen + first));
    }
  }
  const storage = wasm.allocate(scales.byteLength, "bench");
  wasm.write(storage, 0, new Uint8Array(scales.buffer));
  return storage;
}

/** K or v of one request, one token after another. */
async function cacheOnHost(
  wasm: Backend,
  { shape: s, dtype }: DecodeProblem,
  request: number,
  elements: number,
  from: number,
): Promise<Storage> {
  if (s.pageSize === undefined) return fillOnHost(wasm, elements, dtype, from);
  const first = from - request * elements;
  const size = s.pageSize * s.numKvHeads * s.headDim;
  const target = wasm.allocate(elements * bytesPerElement(dtype), "bench");
  for (let i = 0; i < elements / size; i++) {
    const page = fillOnHost(wasm, size, dtype, first + pageOf(s, request, i) * size);
    wasm.write(target, i * size * bytesPerElement(dtype), await wasm.read(page));
    page.release();
  }
  return target;
}
