/**
 * The quantize family: whole caches from float16 to a dtype (quantize) and back (dequantize), checked bit
 * by bit against the codec. What counts is the share of the memory's speed.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import type { ConvertProblem } from "../../src/convert_problem.ts";
import { convertBytes } from "../../src/cpu/codec.ts";
import { bytesPerElement } from "../../src/dtype.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { GpuStorage } from "../../src/webgpu/buffers.ts";
import { quantizeDispatches } from "../../src/webgpu/quantize.ts";
import { planQuantize } from "../../src/webgpu/quantize_plan.ts";
import type { BenchShape } from "../results.ts";
import { copiesOf, overCopy } from "./copies.ts";
import type { GpuCase, OpenCase } from "./family.ts";
import { fillOnGpu, valuesOf } from "./inputs.ts";

/** A cache, and what it is converted to or from. */
export interface QuantizeCase {
  readonly family: "quantize" | "dequantize";
  readonly batch: number;
  readonly kvLen: number;
  readonly dtype: DType;
}

const NUM_KV_HEADS = 8;
const HEAD_DIM = 128;

const inEachWay = (batch: number, kvLen: number): QuantizeCase[] => {
  const size = { batch, kvLen };
  return [
    { family: "quantize", ...size, dtype: "float8_e4m3fn" },
    { family: "quantize", ...size, dtype: "float8_e5m2" },
    { family: "quantize", ...size, dtype: "float32" },
    { family: "dequantize", ...size, dtype: "float8_e4m3fn" },
    { family: "dequantize", ...size, dtype: "float8_e5m2" },
    { family: "dequantize", ...size, dtype: "float32" },
  ];
};

export const QUANTIZE_CASES: readonly QuantizeCase[] = inEachWay(64, 4096);

/** For software adapters. */
export const SMALL_QUANTIZE_CASES: readonly QuantizeCase[] = inEachWay(1, 64);

/** A case of the family. */
export function quantizeCase(wanted: QuantizeCase): GpuCase {
  const { family, batch, kvLen, dtype } = wanted;
  const shape: BenchShape = {
    batch,
    qoLen: 1,
    kvLen,
    numQoHeads: NUM_KV_HEADS,
    numKvHeads: NUM_KV_HEADS,
    headDim: HEAD_DIM,
  };
  const count = batch * kvLen * NUM_KV_HEADS * HEAD_DIM;
  const [from, to]: [DType, DType] = family === "quantize"
    ? ["float16", dtype]
    : [dtype, "float16"];
  return {
    family,
    shape,
    dtype,
    bytes: count * (bytesPerElement(from) + bytesPerElement(to)),
    flops: 0,
    open: (backend) => openQuantize(backend, { count, from, to, factor: 1 }),
  };
}

async function openQuantize(backend: WebGpuBackend, problem: ConvertProblem): Promise<OpenCase> {
  const { count, from, to } = problem;
  const temporary: GPUBuffer[] = [];
  const owned: GpuStorage[] = [];
  const release = () => {
    for (const storage of owned) storage.release();
    for (const buffer of temporary) buffer.destroy();
  };
  try {
    const sources: GpuStorage[] = [];
    for (let i = 0; i < copiesOf(count * bytesPerElement(from)); i++) {
      const source = await fillOnGpu(backend, count, from, 0);
      owned.push(source);
      sources.push(source);
    }
    const result = backend.allocate(count * bytesPerElement(to), "bench");
    owned.push(result);
    await result.ready;
    const plan = planQuantize(problem, backend.capabilities, await backend.rounding());
    const kernel = await backend.kernels.get(plan.kernel);
    const operands = { source: sources[0], result };
    const dispatches = quantizeDispatches(backend.device, plan, kernel, operands, temporary);
    return {
      kernel: kernel.name,
      calls: sources.map(({ buffer }) => overCopy(dispatches, [[sources[0].buffer, buffer]])),
      check: async () => check(await backend.read(result), problem),
      callAndRead: null,
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

/** Elements at either end that are compared. */
const COMPARED = 1 << 16;

/** Throws unless the codec gives the same bits; the difference is 0. */
function check(actual: Uint8Array, { count, from, to }: ConvertProblem): number {
  const compared = Math.min(COMPARED, count);
  for (const first of new Set([0, count - compared])) {
    const values = valuesOf(compared, from, first);
    const bytes = new Uint8Array(values.buffer);
    const at = first * bytesPerElement(to);
    const compare = (offset: number, expected: Uint8Array) => {
      const wrong = expected.findIndex((byte, i) => byte !== actual[at + offset + i]);
      if (wrong >= 0) throw new Error(`byte ${at + offset + wrong} of ${from} to ${to} is wrong`);
    };
    if (to === "float32") compare(0, bytes);
    else convertBytes(bytes, "float32", to, true, compare);
  }
  return 0;
}
