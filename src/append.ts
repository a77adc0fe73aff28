/**
 * Appending keys and values to a paged cache of the caller's.
 *
 * @module
 */

import { APPEND_OPTIONS, type AppendOptions, appendPaged } from "./append_problem.ts";
import { checkKvLayout } from "./attention_options.ts";
import type { Storage } from "./backend.ts";
import { cachePages, cacheTensors } from "./cache_pages.ts";
import { type PagedKv, scalesOf, tensorsOfCache } from "./paged_kv.ts";
import { OptionError } from "./errors.ts";
import { asDeviceTensor, commonDevice, type Tensor, useTensors } from "./tensor.ts";

/**
 * Appends keys and values to a paged cache, converting them to its dtype on the device (FlashInfer's
 * `append_paged_kv_cache`). The page table counts the appended tokens already.
 *
 * Each value is rounded once, to nearest even, from its float32; FP8 saturates. Slots that no token
 * is written to keep every bit. Two tokens in one slot leave either, or a mixture.
 *
 * @param appendKey `[nnz, Hkv, D]` in float32, float16 or bfloat16: all requests' new keys.
 * @param appendValue `[nnz, Hkv, D]` in appendKey's dtype; its head dim may be another where the
 *   cache's is.
 * @param batchIndices The request of each token: nnz integers.
 * @param positions The position of each token in its request, from 0: nnz integers;
 *   {@linkcode getBatchIndicesPositions} gives both.
 * @param kvCache One tensor `[pages, 2, pageSize, Hkv, D]` (with `kvLayout: "HND"`:
 *   `[pages, 2, Hkv, pageSize, D]`), or a pair `[k, v]` of tensors without the 2; any dtype.
 * @param kvIndices Page numbers: request i's pages are entries `kvIndptr[i]` to `kvIndptr[i + 1] - 1`.
 * @param kvIndptr B + 1 integers, from 0, never falling.
 * @param kvLastPageLen The tokens in the last page of each request, the new ones included.
 * @param options See {@linkcode AppendOptions}.
 * @throws {ShapeError} `DTypeError` or `OptionError` when the arguments do not fit, with the request
 *   at fault, before anything is written; `LimitError` when the device is too small, or on WebGPU a
 *   head dim is no multiple of 8; `DestroyedError`, `DeviceMismatchError`; `OutOfMemoryError`,
 *   `DeviceLostError` or `ShaderError` from the GPU.
 *
 * @example
 * ```ts
 * import { appendPagedKvCache, getBatchIndicesPositions, getSeqLens, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * // 8 pages of 16 tokens, 2 heads of 64; request 0 has 17 tokens, request 1 has 3.
 * using kvCache = device.empty([8, 2, 16, 2, 64], "float8_e4m3fn");
 * const kvIndptr = [0, 2, 3], kvIndices = [5, 0, 2], kvLastPageLen = [1, 3];
 * const seqLens = getSeqLens(kvIndptr, kvLastPageLen, 16);
 * const { batchIndices, positions } = getBatchIndicesPositions([0, 17, 20], seqLens);
 * using k = device.tensor(random(20 * 2 * 64), [20, 2, 64], "float16");
 * using v = device.tensor(random(20 * 2 * 64), [20, 2, 64], "float16");
 * await appendPagedKvCache(
 *   k,
 *   v,
 *   batchIndices,
 *   positions,
 *   kvCache,
 *   kvIndices,
 *   kvIndptr,
 *   kvLastPageLen,
 * );
 * ```
 */
export async function appendPagedKvCache(
  appendKey: Tensor,
  appendValue: Tensor,
  batchIndices: ArrayLike<number>,
  positions: ArrayLike<number>,
  kvCache: PagedKv,
  kvIndices: ArrayLike<number>,
  kvIndptr: ArrayLike<number>,
  kvLastPageLen: ArrayLike<number>,
  options: AppendOptions = {},
): Promise<void> {
  const key = asDeviceTensor("appendKey", appendKey);
  const value = asDeviceTensor("appendValue", appendValue);
  const layout = checkKvLayout(options, APPEND_OPTIONS);
  const cache = cacheTensors<unknown>(tensorsOfCache(kvCache, layout))
    .map(([name, tensor]) => [name, asDeviceTensor(name, tensor)] as const);
  const kvScales = scalesOf(kvCache, options.kvScales);
  const scales = kvScales === undefined
    ? []
    : [["options.kvScales", asDeviceTensor("options.kvScales", kvScales)] as const];
  const tensors = [["appendKey", key], ["appendValue", value], ...cache, ...scales] as const;
  const device = commonDevice(tensors);
  const pages = cachePages(cache.map(([, tensor]) => tensor), layout);
  const problem = appendPaged(
    {
      key,
      value,
      batchIndices,
      positions,
      indices: kvIndices,
      indptr: kvIndptr,
      lastPageLen: kvLastPageLen,
    },
    pages,
    { ...options, kvScales },
  );
  await useTensors(tensors, async (storages) => {
    checkApart(tensors.map(([name]) => name), storages);
    const [keyStorage, valueStorage, k] = storages;
    await device.engine.append(problem, {
      key: keyStorage,
      value: valueStorage,
      k,
      v: storages[1 + cache.length],
      kvScales: storages[2 + cache.length],
    });
  });
}

/** Refuses what is written where it shares a buffer with what is appended, or memory with another. */
function checkApart(names: readonly string[], storages: readonly Storage[]): void {
  for (let i = 2; i < storages.length; i++) {
    const shared = storages.slice(0, i).findIndex((other, at) =>
      storages[i].buffer !== null && storages[i].buffer === other.buffer &&
      (at < 2 || overlaps(storages[i], other))
    );
    if (shared < 0) continue;
    throw new OptionError(names[i], {
      got: `the buffer of ${names[shared]}`,
      expected: shared < 2
        ? "a buffer of its own"
        : `a part of it that is ${shared === 2 ? "k" : "v"}'s nowhere`,
      hint: "A GPU cannot write to a buffer that it reads at once; copy the rows first.",
    });
  }
}

/** Whether two storages of one buffer have bytes in common; bindings are whole granules of 16. */
function overlaps(a: Storage, b: Storage): boolean {
  const end = ({ byteOffset, byteLength }: Storage) => byteOffset + Math.ceil(byteLength / 16) * 16;
  return a.byteOffset < end(b) && b.byteOffset < end(a);
}
