/**
 * Decode: one query token a request against a contiguous or padded KV cache.
 *
 * @module
 */

import { paddedDecode, singleDecode } from "./decode_problem.ts";
import { copyOptions, readOptions, tensorsOf, withZeros } from "./option_tensors.ts";
import type { DecodeOptions, PaddedDecodeOptions } from "./options.ts";
import { asDeviceTensor, commonDevice, type Tensor, useTensors } from "./tensor.ts";

/** An attention output with the log-sum-exp of its logits. */
export interface AttentionWithLse {
  /** The output, in q's shape. */
  readonly out: Tensor;
  /**
   * Float32, q's shape without the head dim: the logarithm (base 2, or natural with
   * `lseBase: "ln"`) of the sum of exp of the logits.
   */
  readonly lse: Tensor;
}

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
  return decode(q, k, v, options, singleDecode);
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
  return decode(q, k, v, options, paddedDecode);
}

/** Checks, allocates the results and hands over to the backend; a failure leaves no tensor behind. */
async function decode(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: PaddedDecodeOptions,
  check: typeof paddedDecode,
): Promise<Tensor | AttentionWithLse> {
  const inputs = [
    ["q", asDeviceTensor("q", q)],
    ["k", asDeviceTensor("k", k)],
    ["v", asDeviceTensor("v", v)],
  ] as const;
  const specs = [inputs[0][1], inputs[1][1], inputs[2][1]] as const;
  const tensors = tensorsOf(options);
  const device = commonDevice([...inputs, ...tensors]);
  // All but the values of tensors is settled before the caller can change anything.
  const given = tensors.length === 0 ? options : copyOptions(options);
  const planned = check(...specs, withZeros(given, tensors));
  return await useTensors(
    [...inputs, ...tensors],
    async ([qStorage, kStorage, vStorage, ...rest]) => {
      const call = rest.length === 0
        ? planned
        : check(...specs, await readOptions(device, given, tensors, rest));
      const out = device.empty(call.outShape, call.problem.outDtype);
      const lse = call.returnLse ? device.empty(call.lseShape, "float32") : null;
      const results = lse ? [["out", out], ["lse", lse]] as const : [["out", out]] as const;
      try {
        await useTensors(
          results,
          ([outStorage, lseStorage = null]) =>
            device.engine.attend(call.problem, {
              q: qStorage,
              k: kStorage,
              v: vStorage,
              out: outStorage,
              lse: lseStorage,
            }),
        );
        return lse ? { out, lse } : out;
      } catch (error) {
        out.destroy();
        lse?.destroy();
        throw error;
      }
    },
  );
}
