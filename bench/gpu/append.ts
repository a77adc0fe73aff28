/**
 * The append family: tokens of every request, in float16, into a paged cache of one tensor, checked bit
 * by bit against the codec.
 *
 * @module
 */

import { getBatchIndicesPositions } from "@kvasir/attention";
import type { DType, Fp8DType } from "@kvasir/attention";
import { appendPaged, type AppendProblem } from "../../src/append_problem.ts";
import { cachePages } from "../../src/cache_pages.ts";
import { convertBytes } from "../../src/cpu/codec.ts";
import { bytesPerElement } from "../../src/dtype.ts";
import { largestMagnitude, rowScale } from "../../src/row_scale.ts";
import { appendDispatches } from "../../src/webgpu/append.ts";
import { planAppend } from "../../src/webgpu/append_plan.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { GpuStorage } from "../../src/webgpu/buffers.ts";
import type { BenchShape } from "../results.ts";
import { copiesOf, overCopy } from "./copies.ts";
import type { GpuCase, OpenCase } from "./family.ts";
import { BLOCK_VALUES, fillOnGpu, valuesOf } from "./inputs.ts";

/** Requests that get so many tokens each. */
export interface AppendCase {
  readonly batch: number;
  readonly tokens: number;
  readonly dtype: DType;
  /** Whether each row gets a scale of its own. */
  readonly hasScales?: boolean;
}

const NUM_KV_HEADS = 8;
const HEAD_DIM = 128;
const PAGE_SIZE = 16;
const ROW = NUM_KV_HEADS * HEAD_DIM;
/** Where in the endless values keys and values begin. */
const FROM = { key: 0, value: BLOCK_VALUES / 2 };

const inEachDtype = (batch: number, tokens: number): AppendCase[] => [
  ...(["float16", "float8_e4m3fn", "float8_e5m2"] as const)
    .map((dtype) => ({ batch, tokens, dtype })),
  ...(["float8_e4m3fn", "float8_e5m2"] as const)
    .map((dtype) => ({ batch, tokens, dtype, hasScales: true })),
];

/** A step of decode, and prompts. */
export const APPEND_CASES: readonly AppendCase[] = [
  ...inEachDtype(64, 1),
  ...inEachDtype(64, 1024),
];

/** For software adapters. */
export const SMALL_APPEND_CASES: readonly AppendCase[] = inEachDtype(2, 20);

/** A case of the family. Appended tokens count as queries and keys of its shape. */
export function appendCase(wanted: AppendCase): GpuCase {
  const { batch, tokens, dtype, hasScales } = wanted;
  const shape: BenchShape = {
    batch,
    qoLen: tokens,
    kvLen: tokens,
    numQoHeads: NUM_KV_HEADS,
    numKvHeads: NUM_KV_HEADS,
    headDim: HEAD_DIM,
    ...(hasScales ? { scales: "tokens" as const } : {}),
  };
  return {
    family: "append",
    shape,
    dtype,
    bytes: 2 * batch * tokens *
      (ROW * (2 + bytesPerElement(dtype)) + (hasScales ? 4 * NUM_KV_HEADS : 0)),
    flops: 0,
    open: (backend) => openAppend(backend, wanted),
  };
}

async function openAppend(backend: WebGpuBackend, wanted: AppendCase): Promise<OpenCase> {
  const { problem, elements, numScales } = problemOf(wanted);
  const temporary: GPUBuffer[] = [];
  const owned: GpuStorage[] = [];
  const fill = async (count: number, dtype: DType, from: number) => {
    const storage = await fillOnGpu(backend, count, dtype, from);
    owned.push(storage);
    return storage;
  };
  const release = () => {
    for (const storage of owned) storage.release();
    for (const buffer of temporary) buffer.destroy();
  };
  try {
    const rows = problem.numTokens * ROW;
    const cache = await fill(elements, wanted.dtype, 0);
    const copies: { key: GpuStorage; value: GpuStorage }[] = [];
    for (let i = 0; i < copiesOf(4 * rows); i++) {
      copies.push({
        key: await fill(rows, "float16", FROM.key),
        value: await fill(rows, "float16", FROM.value),
      });
    }
    const plan = planAppend(problem, backend.capabilities, await backend.rounding());
    const kernels = await Promise.all(plan.passes.map(({ kernel }) => backend.kernels.get(kernel)));
    const [first] = copies;
    const kvScales = numScales > 0 ? await fill(numScales, "float32", 0) : undefined;
    const operands = { ...first, k: cache, v: cache, kvScales };
    const dispatches = appendDispatches(backend, plan, kernels, problem, operands, temporary);
    return {
      kernel: kernels.map(({ name }) => name).join(" + "),
      calls: copies.map(({ key, value }) =>
        overCopy(dispatches, [
          [first.key.buffer, key.buffer],
          [first.value.buffer, value.buffer],
        ])
      ),
      check: async () => check(await backend.read(cache), problem, wanted.dtype),
      callAndRead: null,
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** Pages in a scattered order; the elements of the cache, and of the scales. */
function problemOf({ batch, tokens, dtype, hasScales }: AppendCase) {
  const pages = Math.ceil(tokens / PAGE_SIZE);
  const numPages = batch * pages;
  const shape = [numPages, 2, PAGE_SIZE, NUM_KV_HEADS, HEAD_DIM];
  const scales = [numPages, NUM_KV_HEADS, PAGE_SIZE, 2];
  const row = { shape: [batch * tokens, NUM_KV_HEADS, HEAD_DIM], dtype: "float16" as const };
  const each = (length: number) => Array.from({ length: batch + 1 }, (_, i) => i * length);
  const problem = appendPaged(
    {
      key: row,
      value: row,
      ...getBatchIndicesPositions(each(tokens), new Array(batch).fill(tokens)),
      indptr: each(pages),
      // 7919 is a prime that divides no number of pages here.
      indices: Array.from({ length: numPages }, (_, i) => i * 7919 % numPages),
      lastPageLen: new Array(batch).fill((tokens - 1) % PAGE_SIZE + 1),
    },
    cachePages([{ shape, dtype }], "NHD"),
    hasScales ? { kvScales: { shape: scales, dtype: "float32" } } : {},
  );
  const count = (dims: readonly number[]) => dims.reduce((x, dim) => x * dim, 1);
  return { problem, elements: count(shape), numScales: hasScales ? count(scales) : 0 };
}

/** Throws unless the first and the last token are stored as the codec has them. */
function check(cache: Uint8Array, problem: AppendProblem, dtype: DType): number {
  const { numTokens, slots, kStrides, vOffset } = problem;
  const size = bytesPerElement(dtype);
  for (const token of [0, numTokens - 1]) {
    const [page, place] = slots.subarray(token * 3);
    const first = page * kStrides.page + place * kStrides.token;
    for (const [from, at] of [[FROM.key, first], [FROM.value, first + vOffset!]]) {
      const values = valuesOf(ROW, "float16", from + token * ROW);
      if (problem.kvScales) {
        for (let first = 0; first < ROW; first += HEAD_DIM) {
          const head = values.subarray(first, first + HEAD_DIM);
          const { factor } = rowScale(largestMagnitude(head), dtype as Fp8DType);
          head.forEach((x, i) => head[i] = x * factor);
        }
      }
      convertBytes(new Uint8Array(values.buffer), "float32", dtype, true, (offset, bytes) => {
        const wrong = bytes.findIndex((byte, i) => byte !== cache[at * size + offset + i]);
        if (wrong >= 0) throw new Error(`token ${token} is wrong at byte ${offset + wrong}`);
      });
    }
  }
  return 0;
}
