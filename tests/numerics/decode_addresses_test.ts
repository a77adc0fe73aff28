/**
 * The address rule on the GPU, below the public calls: caches that are seen through windows, because
 * a binding could not hold them, and caches of pages. Both must give the bits of the plain cache.
 */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import type { AttentionProblem } from "../../src/attention_problem.ts";
import { paddedDecode } from "../../src/decode_problem.ts";
import { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { probeCapabilities } from "../../src/webgpu/capabilities.ts";
import { LossGuard } from "../../src/webgpu/gpu_errors.ts";
import { attentionDispatches, compileAttention } from "../../src/webgpu/attention.ts";
import { planDecode } from "../../src/webgpu/decode_plan.ts";
import { recordPass } from "../../src/webgpu/dispatch.ts";
import { makeInputs } from "../support/decode.ts";
import { gpuTest, openGpuDevice } from "../support/device.ts";

const BATCH = 3;
const KEYS = 50;
const HEADS = [6, 2] as const;
const HEAD_DIM = 64;
const LENGTHS = [50, 0, 33];
const PAIRS: readonly (readonly [DType, DType])[] = [
  ["float16", "float16"],
  ["float8_e4m3fn", "float8_e4m3fn"],
  ["float16", "float8_e4m3fn"],
];

/** A backend on a device of its own, whose bindings hold so many bytes. */
async function openBackend(bindingBytes?: number): Promise<WebGpuBackend> {
  const device = await openGpuDevice();
  const guard = new LossGuard(device);
  const capabilities = await probeCapabilities(device, guard, {
    subgroups: null,
    isSoftware: true,
  });
  const limits = bindingBytes === undefined
    ? capabilities.limits
    : { ...capabilities.limits, maxStorageBufferBindingSize: bindingBytes };
  const options = { isBorrowed: false, info: null, reason: "a test" };
  return new WebGpuBackend(device, guard, { ...capabilities, limits }, options);
}

interface Operands {
  readonly q: Uint8Array;
  readonly k: Uint8Array;
  readonly v: Uint8Array;
}

/** Runs a problem, with `shared` of the tuning if it is given; the bytes of out and lse. */
async function attend(
  backend: WebGpuBackend,
  problem: AttentionProblem,
  { q, k, v }: Operands,
  shared?: number,
): Promise<Uint8Array[]> {
  const stored = [q, k, v].map((bytes) => {
    const storage = backend.allocate(bytes.length, "test");
    backend.write(storage, 0, bytes);
    return storage;
  });
  const out = backend.allocate(BATCH * HEADS[0] * HEAD_DIM * 4, "out");
  const lse = backend.allocate(BATCH * HEADS[0] * 4, "lse");
  const operands = { q: stored[0], k: stored[1], v: stored[2], out, lse };
  const temporary: GPUBuffer[] = [];
  if (shared === undefined) {
    await backend.attend(problem, operands);
  } else {
    const { device } = backend;
    const plan = planDecode(problem, backend.capabilities, { shared });
    const kernels = await compileAttention(backend, plan);
    const encoder = device.createCommandEncoder();
    for (
      const dispatch of attentionDispatches(backend, plan, kernels, problem, operands, temporary)
    ) {
      recordPass(device, encoder, [dispatch], {});
    }
    device.queue.submit([encoder.finish()]);
  }
  const results = [await backend.read(out), await backend.read(lse)];
  for (const storage of [...stored, out, lse]) storage.release();
  for (const buffer of temporary) buffer.destroy();
  return results;
}

function inputsFor(kvLayout: "NHD" | "HND", kvDtype: DType, vDtype = kvDtype) {
  const sizes = { batch: BATCH, kvLen: KEYS, heads: HEADS, headDim: HEAD_DIM };
  const spec = { ...sizes, kvLayout, kvDtype, vDtype };
  const { q, k, v } = makeInputs({ ...spec, seqLens: LENGTHS });
  const inner = kvLayout === "NHD" ? [KEYS, HEADS[1]] : [HEADS[1], KEYS];
  const shape = [BATCH, ...inner, HEAD_DIM];
  const queries = { shape: [BATCH, HEADS[0], HEAD_DIM], dtype: "float32" as const };
  const caches = [{ shape, dtype: kvDtype }, { shape, dtype: vDtype }] as const;
  const { problem } = paddedDecode(queries, ...caches, { kvLayout, seqLens: LENGTHS });
  return { problem, operands: { q: q.bytes, k: k.bytes, v: v.bytes } };
}

function assertClose(label: string, got: Uint8Array, wanted: Uint8Array): void {
  const [a, b] = [new Float32Array(got.buffer), new Float32Array(wanted.buffer)];
  a.forEach((x, i) =>
    assert.ok(x === b[i] || Math.abs(x - b[i]) < 3e-6, `${label}: ${i}: ${x}, not ${b[i]}`)
  );
}

gpuTest("caches larger than a binding are computed window by window", async () => {
  const plain = await openBackend();
  for (const bindingBytes of [14_000, 20_000, 35_000]) {
    const small = await openBackend(bindingBytes);
    for (const kvLayout of ["NHD", "HND"] as const) {
      for (const [kvDtype, vDtype] of PAIRS) {
        const { problem, operands } = inputsFor(kvLayout, kvDtype, vDtype);
        const label = `${bindingBytes}, ${kvLayout}, ${kvDtype}, ${vDtype}`;
        const cacheBytes = operands.k.length;
        const { dispatches } = planDecode(problem, small.capabilities);
        assert.equal(dispatches.length > 1, cacheBytes + 256 > bindingBytes, label);
        const expected = await attend(plain, problem, operands);
        // Addresses are added up in one of two ways (shaders/address.wgsl).
        for (const shared of [undefined, 0]) {
          const answer = await attend(small, problem, operands, shared);
          answer.forEach((bytes, i) => assertClose(`${label}, ${shared}`, bytes, expected[i]));
        }
      }
    }
    small.destroy();
  }
  plain.destroy();
});

gpuTest("a cache of pages gives the bits of the plain cache, wherever its pages lie", async () => {
  const backend = await openBackend();
  for (const pageSize of [1, 5, 16]) {
    const { problem, operands } = inputsFor("NHD", "float16");
    const expected = await attend(backend, problem, operands);
    const tokenBytes = HEADS[1] * HEAD_DIM * 2;
    const pagesOf = LENGTHS.map((length) => Math.ceil(length / pageSize));
    const pages = pagesOf.reduce((sum, count) => sum + count, 0);
    // Pages in a shuffled order, with one that nobody uses; unused slots are NaN.
    const place = (page: number) => (page * 7 + 3) % (pages + 1);
    const used = pages % 7 === 6 ? (page: number) => page : place;
    const scattered = (cache: Uint8Array) => {
      const bytes = new Uint8Array((pages + 1) * pageSize * tokenBytes).fill(0xff);
      let page = 0;
      LENGTHS.forEach((length, request) => {
        for (let token = 0; token < length; token++) {
          const from = (request * KEYS + token) * tokenBytes;
          const slot = used(page + Math.floor(token / pageSize)) * pageSize + token % pageSize;
          bytes.set(cache.subarray(from, from + tokenBytes), slot * tokenBytes);
        }
        page += pagesOf[request];
      });
      return bytes;
    };
    const requests = problem.requests.slice();
    for (let request = 0, first = 0; request < BATCH; request++) {
      requests[request * 4 + 3] = first;
      first += pagesOf[request];
    }
    const strides = { ...problem.kStrides, page: pageSize * HEADS[1] * HEAD_DIM };
    const paged: AttentionProblem = {
      ...problem,
      requests,
      pageSize,
      pageTable: Uint32Array.from({ length: pages }, (_, page) => used(page)),
      kStrides: strides,
      vStrides: strides,
    };
    const { q, k, v } = operands;
    const answer = await attend(backend, paged, { q, k: scattered(k), v: scattered(v) });
    assert.deepEqual(answer, expected, `pages of ${pageSize}`);
  }
  backend.destroy();
});
