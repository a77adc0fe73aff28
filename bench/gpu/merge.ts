/**
 * The merge family: states of parts of the keys, [rows, states, heads, D], into one a row, checked
 * against float64.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { MergeProblem } from "../../src/attention_problem.ts";
import { decodeToFloat32 } from "../../src/cpu/codec.ts";
import { bytesPerElement } from "../../src/dtype.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { GpuStorage } from "../../src/webgpu/buffers.ts";
import { temporaryMemory } from "../../src/webgpu/memory.ts";
import { mergeResources } from "../../src/webgpu/merge.ts";
import { planMerge } from "../../src/webgpu/merge_plan.ts";
import type { BenchShape } from "../results.ts";
import { copiesOf, overCopy } from "./copies.ts";
import type { GpuCase, OpenCase } from "./family.ts";
import { BLOCK_VALUES, fillOnGpu, valuesOf } from "./inputs.ts";

/** Rows, and the states of each, of `numHeads` heads. */
export interface MergeCase {
  readonly rows: number;
  readonly states: number;
  readonly numHeads: number;
  readonly dtype: DType;
}

const HEAD_DIM = 128;
/** Where in the endless values v and s begin. */
const FROM = { v: 0, s: BLOCK_VALUES / 2 };
/** Rounding to bfloat16, and a little. */
const TOLERANCE = 1e-2;

const inEachDtype = (cases: readonly Omit<MergeCase, "dtype">[]): MergeCase[] =>
  cases.flatMap((one) => (["float32", "float16"] as const).map((dtype) => ({ ...one, dtype })));

/** Many rows of few states, as cascades have, and few rows of many, as split decode has. */
export const MERGE_CASES: readonly MergeCase[] = inEachDtype([
  { rows: 4096, states: 2, numHeads: 32 },
  { rows: 512, states: 16, numHeads: 32 },
  { rows: 1, states: 128, numHeads: 32 },
]);

/** For software adapters. */
export const SMALL_MERGE_CASES: readonly MergeCase[] = inEachDtype([
  { rows: 16, states: 4, numHeads: 4 },
]);

/** A case of the family. A state counts as a key of its shape. */
export function mergeCase(wanted: MergeCase): GpuCase {
  const { rows, states, numHeads, dtype } = wanted;
  const shape: BenchShape = {
    batch: rows,
    qoLen: 1,
    kvLen: states,
    numQoHeads: numHeads,
    numKvHeads: numHeads,
    headDim: HEAD_DIM,
  };
  const stateBytes = numHeads * (HEAD_DIM * bytesPerElement(dtype) + 4);
  return {
    family: "merge",
    shape,
    dtype,
    bytes: rows * (states + 1) * stateBytes,
    flops: 2 * rows * states * numHeads * HEAD_DIM,
    open: (backend) => openMerge(backend, wanted, rows * states * stateBytes),
  };
}

async function openMerge(
  backend: WebGpuBackend,
  wanted: MergeCase,
  bytes: number,
): Promise<OpenCase> {
  const { rows, states, numHeads, dtype } = wanted;
  const temporary: GPUBuffer[] = [];
  const owned: GpuStorage[] = [];
  const fill = async (elements: number, as: DType, from: number) => {
    const storage = await fillOnGpu(backend, elements, as, from);
    owned.push(storage);
    return storage;
  };
  const release = () => {
    for (const storage of owned) storage.release();
    for (const buffer of temporary) buffer.destroy();
  };
  try {
    const heads = rows * numHeads;
    const out = await fill(heads * HEAD_DIM, dtype, FROM.s);
    const lse = await fill(heads, "float32", FROM.v);
    const copies: { v: GpuStorage; s: GpuStorage }[] = [];
    for (let i = 0; i < copiesOf(bytes); i++) {
      copies.push({
        v: await fill(heads * states * HEAD_DIM, dtype, FROM.v),
        s: await fill(heads * states, "float32", FROM.s),
      });
    }
    const plan = planMerge(problemOf(wanted), backend.capabilities);
    const kernel = await backend.kernels.get(plan.kernel);
    const [first] = copies;
    const resources = mergeResources<never>(temporaryMemory(backend.device, temporary), plan, {
      vA: first.v.binding,
      sA: first.s.binding,
      vB: first.v.binding,
      sB: first.s.binding,
      out: out.binding,
      lse: lse.binding,
      writeLse: true,
    });
    const dispatch = { kernel, resources, grid: plan.grid };
    return {
      kernel: kernel.name,
      calls: copies.map(({ v, s }) =>
        overCopy([dispatch], [[first.v.buffer, v.buffer], [first.s.buffer, s.buffer]])
      ),
      check: async () => {
        const actual = decodeToFloat32(await backend.read(out), dtype);
        return check(actual, await backend.read(lse), wanted);
      },
      callAndRead: null,
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

function problemOf({ rows, states, numHeads, dtype }: MergeCase): MergeProblem {
  const words = Array.from({ length: rows }, (_, row) => [row * states, states, 0, 0]).flat();
  return {
    numRows: rows,
    numHeads,
    headDim: HEAD_DIM,
    vDtype: dtype,
    outDtype: dtype,
    rows: Uint32Array.from(words),
  };
}

/** The largest difference of the first and the last row from float64. */
function check(
  actual: Float32Array,
  lseBytes: Uint8Array<ArrayBuffer>,
  { rows, states, numHeads, dtype }: MergeCase,
): number {
  const lses = new Float32Array(lseBytes.buffer);
  let largest = 0;
  const compare = (what: string, got: number, expected: number) => {
    const difference = Math.abs(got - expected);
    if (!(difference <= TOLERANCE)) throw new Error(`${what} is wrong: ${got}, not ${expected}`);
    largest = Math.max(largest, difference);
  };
  for (const row of new Set([0, rows - 1])) {
    const from = row * states * numHeads;
    const s = valuesOf(states * numHeads, "float32", FROM.s + from);
    const v = valuesOf(states * numHeads * HEAD_DIM, dtype, FROM.v + from * HEAD_DIM);
    for (let head = 0; head < numHeads; head++) {
      const weights = Array.from({ length: states }, (_, i) => 2 ** s[i * numHeads + head]);
      const total = weights.reduce((a, b) => a + b);
      compare(`lse of row ${row}`, lses[row * numHeads + head], Math.log2(total));
      for (let d = 0; d < HEAD_DIM; d++) {
        let sum = 0;
        weights.forEach((weight, i) => sum += weight * v[(i * numHeads + head) * HEAD_DIM + d]);
        compare(`row ${row}`, actual[(row * numHeads + head) * HEAD_DIM + d], sum / total);
      }
    }
  }
  return largest;
}
