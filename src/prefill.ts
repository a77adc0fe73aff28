/**
 * Prefill: many query tokens a request against a contiguous or padded KV cache.
 *
 * @module
 */

import { attend, type AttentionWithLse } from "./attend.ts";
import type { PaddedPrefillOptions, PrefillOptions } from "./options.ts";
import { paddedPrefill, singlePrefill } from "./prefill_problem.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Prefill attention of one request: N query tokens over a contiguous KV cache
 * (FlashInfer's `single_prefill_with_kv_cache`).
 *
 * `out[i, h] = softmax(smScale · q[i, h]·k[j, h / group]) · v[j, h / group]` over the keys j that
 * query i sees, with `group = Hq / Hkv` of any size. A query sees every key, or with `causal: true`
 * those up to its own position, L - N + i, or those of its row of `customMask`; `windowLeft` takes
 * keys away from each. A query that sees none gives 0, with an lse of -Infinity, or its sink.
 *
 * @param q `[N, Hq, D]`; any dtype.
 * @param k `[L, Hkv, D]`, or `[Hkv, L, D]` with `kvLayout: "HND"`; any dtype.
 * @param v k's dtype, and its shape, but for the head dim, which may be another: Dv.
 * @param options See {@linkcode PrefillOptions}. By default every query sees every key, and
 *   `smScale` is `1 / sqrt(D)`.
 * @returns `[N, Hq, Dv]` in `outDtype`; with `returnLse: true` also the lse, `[N, Hq]` in float32.
 * @throws {ShapeError} `DTypeError` or `OptionError`, before anything runs, when an argument does
 *   not fit; `LimitError` when the device is too small for it; `DestroyedError`,
 *   `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU.
 *
 * @example
 * ```ts
 * import { openDevice, singlePrefillWithKvCache } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * using q = device.tensor(new Float32Array(3 * 4 * 8).fill(0.5), [3, 4, 8], "float32");
 * using k = device.tensor(new Float32Array(5 * 2 * 8).fill(1), [5, 2, 8], "float16");
 * using v = device.tensor(new Float32Array(5 * 2 * 8).fill(2), [5, 2, 8], "float16");
 * using out = await singlePrefillWithKvCache(q, k, v, { causal: true });
 * console.log(out.shape, await out.read()); // [3, 4, 8], 96 times 2
 * ```
 */
export function singlePrefillWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: PrefillOptions & { returnLse: true },
): Promise<AttentionWithLse>;
/** {@inheritDoc singlePrefillWithKvCache} */
export function singlePrefillWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: PrefillOptions & { returnLse?: false },
): Promise<Tensor>;
/** {@inheritDoc singlePrefillWithKvCache} */
export function singlePrefillWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: PrefillOptions,
): Promise<Tensor | AttentionWithLse>;
export function singlePrefillWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: PrefillOptions = {},
): Promise<Tensor | AttentionWithLse> {
  return attend(q, k, v, options, singlePrefill);
}

/**
 * Prefill attention of a batch: up to N query tokens a request over a padded KV cache (FlashInfer's
 * `single_prefill_with_kv_cache` for each request; its padded batch API had no prefill).
 *
 * Each request b is what {@linkcode singlePrefillWithKvCache} gives for its first `qoLens[b]` rows of
 * q and its first `seqLens[b]` keys: with `causal: true`, query i sees the keys up to
 * `seqLens[b] - qoLens[b] + i`.
 *
 * @param q `[B, N, Hq, D]`; any dtype.
 * @param k `[B, L, Hkv, D]`, or `[B, Hkv, L, D]` with `kvLayout: "HND"`; any dtype.
 * @param v k's dtype, and its shape, but for the head dim, which may be another: Dv.
 * @param options See {@linkcode PaddedPrefillOptions}.
 * @returns `[B, N, Hq, Dv]` in `outDtype`; with `returnLse: true` also the lse, `[B, N, Hq]` in
 *   float32. Rows behind a request's `qoLens` are 0, with an lse of -Infinity.
 * @throws {ShapeError} `DTypeError` or `OptionError`, before anything runs, when an argument does
 *   not fit; `LimitError` when the device is too small for it; `DestroyedError`,
 *   `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU.
 *
 * @example
 * ```ts
 * import { batchPrefillWithPaddedKvCache, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using q = device.tensor(random(2 * 4 * 6 * 64), [2, 4, 6, 64], "float16");
 * using k = device.tensor(random(2 * 10 * 2 * 64), [2, 10, 2, 64], "float8_e4m3fn");
 * using v = device.tensor(random(2 * 10 * 2 * 64), [2, 10, 2, 64], "float8_e4m3fn");
 * const { out, lse } = await batchPrefillWithPaddedKvCache(q, k, v, {
 *   causal: true,
 *   qoLens: [4, 1],
 *   seqLens: [10, 7],
 *   returnLse: true,
 * });
 * console.log(out.shape, lse.shape); // [2, 4, 6, 64] [2, 4, 6]
 * ```
 */
export function batchPrefillWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: PaddedPrefillOptions & { returnLse: true },
): Promise<AttentionWithLse>;
/** {@inheritDoc batchPrefillWithPaddedKvCache} */
export function batchPrefillWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: PaddedPrefillOptions & { returnLse?: false },
): Promise<Tensor>;
/** {@inheritDoc batchPrefillWithPaddedKvCache} */
export function batchPrefillWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: PaddedPrefillOptions,
): Promise<Tensor | AttentionWithLse>;
export function batchPrefillWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: PaddedPrefillOptions = {},
): Promise<Tensor | AttentionWithLse> {
  return attend(q, k, v, options, paddedPrefill);
}
