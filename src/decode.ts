/**
 * Decode: one query token a request against a contiguous or padded KV cache.
 *
 * @module
 */

import { attend, type AttentionWithLse } from "./attend.ts";
import { paddedDecode, singleDecode } from "./decode_problem.ts";
import type { DecodeOptions, PaddedDecodeOptions } from "./options.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Decode attention of one request: one query token over a contiguous KV cache
 * (FlashInfer's `single_decode_with_kv_cache`).
 *
 * `out[h] = softmax(smScale · q[h]·k[:, h / group]) · v[:, h / group]`, with
 * `group = Hq / Hkv` of any size.
 *
 * @param q `[Hq, D]`; any dtype.
 * @param k `[L, Hkv, D]`, or `[Hkv, L, D]` with `kvLayout: "HND"`; any dtype.
 * @param v k's shape and dtype.
 * @param options See {@linkcode DecodeOptions}.
 * @returns `[Hq, D]` in `outDtype`; with `returnLse: true` also the lse, `[Hq]` in float32.
 * @throws {ShapeError} `DTypeError` or `OptionError`, before anything runs, when an argument does
 *   not fit; `LimitError` when the device is too small for it; `DestroyedError`,
 *   `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU.
 *
 * @example
 * ```ts
 * import { openDevice, singleDecodeWithKvCache } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * using q = device.tensor(new Float32Array(4 * 8).fill(0.5), [4, 8], "float32");
 * using k = device.tensor(new Float32Array(3 * 2 * 8).fill(1), [3, 2, 8], "float8_e4m3fn");
 * using v = device.tensor(new Float32Array(3 * 2 * 8).fill(2), [3, 2, 8], "float8_e4m3fn");
 * using out = await singleDecodeWithKvCache(q, k, v);
 * console.log(await out.read()); // 32 times 2
 * ```
 */
export function singleDecodeWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: DecodeOptions & { returnLse: true },
): Promise<AttentionWithLse>;
/** {@inheritDoc singleDecodeWithKvCache} */
export function singleDecodeWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: DecodeOptions & { returnLse?: false },
): Promise<Tensor>;
/** {@inheritDoc singleDecodeWithKvCache} */
export function singleDecodeWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: DecodeOptions,
): Promise<Tensor | AttentionWithLse>;
export function singleDecodeWithKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: DecodeOptions = {},
): Promise<Tensor | AttentionWithLse> {
  return attend(q, k, v, options, singleDecode);
}

/**
 * Decode attention of a batch: one query token a request over a padded KV cache
 * (FlashInfer's `batch_decode_with_padded_kv_cache`, with optional lengths).
 *
 * `out[b, h] = softmax(smScale · q[b, h]·k[b, :n, h / group]) · v[b, :n, h / group]`, with
 * `n = seqLens[b]` and `group = Hq / Hkv` of any size.
 *
 * @param q `[B, Hq, D]`; any dtype.
 * @param k `[B, L, Hkv, D]`, or `[B, Hkv, L, D]` with `kvLayout: "HND"`; any dtype.
 * @param v k's shape and dtype.
 * @param options See {@linkcode PaddedDecodeOptions}.
 * @returns `[B, Hq, D]` in `outDtype`; with `returnLse: true` also the lse, `[B, Hq]` in float32.
 * @throws {ShapeError} `DTypeError` or `OptionError`, before anything runs, when an argument does
 *   not fit; `LimitError` when the device is too small for it; `DestroyedError`,
 *   `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU.
 *
 * @example
 * ```ts
 * import { batchDecodeWithPaddedKvCache, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using q = device.tensor(random(2 * 6 * 64), [2, 6, 64], "float16");
 * using k = device.tensor(random(2 * 10 * 2 * 64), [2, 10, 2, 64], "float8_e4m3fn");
 * using v = device.tensor(random(2 * 10 * 2 * 64), [2, 10, 2, 64], "float8_e4m3fn");
 * const { out, lse } = await batchDecodeWithPaddedKvCache(q, k, v, {
 *   kvLayout: "NHD",
 *   posEncodingMode: "NONE",
 *   seqLens: [10, 7],
 *   returnLse: true,
 * });
 * console.log(out.shape, lse.shape); // [2, 6, 64] [2, 6]
 * ```
 */
export function batchDecodeWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: PaddedDecodeOptions & { returnLse: true },
): Promise<AttentionWithLse>;
/** {@inheritDoc batchDecodeWithPaddedKvCache} */
export function batchDecodeWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: PaddedDecodeOptions & { returnLse?: false },
): Promise<Tensor>;
/** {@inheritDoc batchDecodeWithPaddedKvCache} */
export function batchDecodeWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: PaddedDecodeOptions,
): Promise<Tensor | AttentionWithLse>;
export function batchDecodeWithPaddedKvCache(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: PaddedDecodeOptions = {},
): Promise<Tensor | AttentionWithLse> {
  return attend(q, k, v, options, paddedDecode);
}
