/**
 * The cascade family: a batch that shares a prefix, as a cascade and as plain paged decode over the same
 * tokens, which each checks itself against.
 *
 * @module
 */

import type { PlannedWork } from "../../src/backend.ts";
import { cascade } from "../../src/cascade_problem.ts";
import { decodeToFloat32 } from "../../src/cpu/codec.ts";
import type { DType } from "../../src/dtype.ts";
import type { PagedDecodePlan } from "../../src/planned_options.ts";
import { pagedDecode } from "../../src/paged_problem.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import type { GpuStorage } from "../../src/webgpu/buffers.ts";
import type { Dispatch } from "../../src/webgpu/dispatch.ts";
import { temporaryMemory } from "../../src/webgpu/memory.ts";
import { bindTemplate, compileTemplates } from "../../src/webgpu/templates.ts";
import { planWork, workTemplates } from "../../src/webgpu/work_plan.ts";
import type { BenchShape } from "../results.ts";
import type { GpuCase, OpenCase } from "./family.ts";
import { fillOnGpu } from "./inputs.ts";

/** Requests that begin with the same tokens. */
export interface CascadeCase {
  readonly batch: number;
  readonly shared: number;
  readonly own: number;
  readonly dtype: DType;
  readonly isCascade: boolean;
}

const HEADS = { numQoHeads: 32, numKvHeads: 8, headDim: 128, pageSize: 16 };
const ROW = HEADS.numKvHeads * HEADS.headDim;
const TOLERANCE = 2e-3;

const bothWays = (batch: number, shared: number, own: number, dtype: DType): CascadeCase[] =>
  [true, false].map((isCascade) => ({ batch, shared, own, dtype, isCascade }));

export const CASCADE_CASES: readonly CascadeCase[] = [
  ...bothWays(64, 8192, 256, "float16"),
  ...bothWays(64, 8192, 256, "float8_e4m3fn"),
];

/** For software adapters. */
export const SMALL_CASCADE_CASES: readonly CascadeCase[] = bothWays(3, 64, 32, "float16");

/** A case of the family. */
export function cascadeCase(wanted: CascadeCase): GpuCase {
  const { batch, shared, own, dtype, isCascade } = wanted;
  const { pageSize, ...heads } = HEADS;
  const shape: BenchShape = { batch, qoLen: 1, kvLen: shared + own, ...heads, pageSize };
  const size = dtype === "float16" ? 2 : 1;
  return {
    family: isCascade ? "cascade" : "decode of a shared prefix",
    shape,
    dtype,
    bytes: 2 * (shared + batch * own) * ROW * size,
    flops: 4 * batch * HEADS.numQoHeads * (shared + own) * HEADS.headDim,
    open: (backend) => open(backend, wanted),
  };
}

/** The work of either way: pages 0 and on are shared, the others follow request by request. */
function workOf({ batch, shared, own, dtype }: CascadeCase, isCascade: boolean): PlannedWork {
  const { pageSize } = HEADS;
  const [common, each] = [shared / pageSize, own / pageSize];
  const from = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);
  const ownPages = (request: number) => from(common + request * each, each);
  const requests = from(0, batch);
  const indptr = (step: number) => from(0, batch + 1).map((i) => i * step);
  const sizes = { ...HEADS, qDtype: "float16", kvDtype: dtype } as const;
  const lastPageLen = new Array(batch).fill(pageSize);
  if (!isCascade) {
    const plan: PagedDecodePlan = {
      ...sizes,
      indptr: indptr(common + each),
      indices: requests.flatMap((request) => [...from(0, common), ...ownPages(request)]),
      lastPageLen,
    };
    return { levels: [pagedDecode(plan, "NHD").problem], merged: null };
  }
  const { levels, merged } = cascade(
    {
      ...sizes,
      levels: [
        {
          qoIndptr: [0, batch],
          pagedKvIndptr: [0, common],
          pagedKvIndices: from(0, common),
          pagedKvLastPageLen: [pageSize],
        },
        {
          qoIndptr: indptr(1),
          pagedKvIndptr: indptr(each),
          pagedKvIndices: requests.flatMap(ownPages),
          pagedKvLastPageLen: lastPageLen,
        },
      ],
    },
    "NHD",
    2,
  );
  return { levels: levels.map(({ problem }) => problem), merged };
}

async function open(backend: WebGpuBackend, wanted: CascadeCase): Promise<OpenCase> {
  const temporary: GPUBuffer[] = [];
  const owned: GpuStorage[] = [];
  const release = () => {
    for (const storage of owned) storage.release();
    for (const buffer of temporary) buffer.destroy();
  };
  const fill = async (elements: number, dtype: DType, first: number) => {
    const storage = await fillOnGpu(backend, elements, dtype, first);
    owned.push(storage);
    return storage;
  };
  try {
    const { batch, shared, own, dtype, isCascade } = wanted;
    const rows = batch * HEADS.numQoHeads * HEADS.headDim;
    const cache = await fill(2 * (shared + batch * own) * ROW, dtype, 0);
    const q = await fill(rows, "float16", 4096);
    const ways = await Promise.all([isCascade, !isCascade].map(async (way) => {
      const out = await fill(rows, "float16", 0);
      const operands = { q, k: cache, v: cache, out, lse: null };
      return { out, calls: await dispatchesOf(backend, workOf(wanted, way), operands, temporary) };
    }));
    const [timed, other] = ways;
    return {
      kernel: timed.calls.map(({ kernel }) => kernel.name).join(" + "),
      // What is shared is read again and again: a copy would change nothing.
      calls: [timed.calls],
      check: async () => {
        const encoder = backend.device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        for (const { kernel, resources, grid } of other.calls) {
          pass.setPipeline(kernel.pipeline);
          pass.setBindGroup(
            0,
            backend.device.createBindGroup({
              layout: kernel.layout,
              entries: resources.map((resource, binding) => ({ binding, resource })),
            }),
          );
          pass.dispatchWorkgroups(...grid);
        }
        pass.end();
        backend.device.queue.submit([encoder.finish()]);
        const [a, b] = await Promise.all(
          ways.map(async ({ out }) => decodeToFloat32(await backend.read(out), "float16")),
        );
        let largest = 0;
        a.forEach((x, i) => {
          const difference = Math.abs(x - b[i]);
          if (!(difference <= TOLERANCE)) throw new Error(`${i} is wrong: ${x}, not ${b[i]}`);
          largest = Math.max(largest, difference);
        });
        return largest;
      },
      callAndRead: null,
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

async function dispatchesOf(
  backend: WebGpuBackend,
  work: PlannedWork,
  operands: Parameters<typeof bindTemplate>[2],
  temporary: GPUBuffer[],
): Promise<Dispatch[]> {
  const memory = temporaryMemory(backend.device, temporary);
  const templates = workTemplates(backend, planWork(work, backend.capabilities), memory);
  const kernels = await compileTemplates(backend.kernels, templates.map(({ kernel }) => kernel));
  const [{ requests, numQoHeads }] = work.levels;
  const noLse = memory.scratch("no lse", requests.length * numQoHeads * 4);
  return templates.map((template) =>
    bindTemplate(template, kernels.get(template.kernel)!, operands, noLse)
  );
}
