/**
 * Keys and values in FP8 with a scale of each token and head, for calls that take whole caches.
 *
 * @module
 */

import type { DType } from "./dtype.ts";
import { type QuantizeKvOptions, quantizingKv } from "./quantize_kv_problem.ts";
import {
  asDeviceTensor,
  commonDevice,
  type DeviceTensor,
  type Tensor,
  useTensors,
} from "./tensor.ts";

/** What {@linkcode quantizeKv} gives: the operands of attention over it. */
export interface QuantizedKv {
  /** Stored keys, in k's shape. */
  readonly k: Tensor;
  /** Stored values, in v's shape. */
  readonly v: Tensor;
  /** What each row is multiplied with to be the real one: float32 `[B, Hkv, L, 2]`, or `[Hkv, L, 2]`. */
  readonly kvScales: Tensor;
}

/**
 * Keys and values in FP8, each row (of a token and head) divided by a scale of its own, its largest
 * finite magnitude over the dtype's largest number (448 or 57344), and rounded once, to nearest even. A
 * row of zeros has a scale of 1; NaN stays NaN, infinity saturates.
 *
 * For paged caches, {@linkcode appendPagedKvCache} with `kvScales` and `PagedKvCache` do the same.
 *
 * @param k `[L, Hkv, D]` or `[B, L, Hkv, D]` (with `kvLayout: "HND"`: `[Hkv, L, D]` or
 *   `[B, Hkv, L, D]`) in float32, float16 or bfloat16.
 * @param v k's shape, but for the head dim, in k's dtype.
 * @param dtype `"float8_e4m3fn"` or `"float8_e5m2"`.
 * @param options See {@linkcode QuantizeKvOptions}.
 * @returns New tensors; attention takes them as `k`, `v` and the option `kvScales`.
 * @throws {ShapeError} `DTypeError` or `OptionError` when an argument does not fit; `LimitError` when
 *   the device is too small, or on WebGPU a head dim is no multiple of 8; `DestroyedError`,
 *   `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU.
 *
 * @example
 * ```ts
 * import { openDevice, quantizeKv, singleDecodeWithKvCache } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using q = device.tensor(random(6 * 64), [6, 64], "float16");
 * using k = device.tensor(random(50 * 2 * 64), [50, 2, 64], "float16");
 * using v = device.tensor(random(50 * 2 * 64), [50, 2, 64], "float16");
 *
 * const quantized = await quantizeKv(k, v, "float8_e4m3fn");
 * using k8 = quantized.k;
 * using v8 = quantized.v;
 * using kvScales = quantized.kvScales; // [2, 50, 2]
 * using out = await singleDecodeWithKvCache(q, k8, v8, { kvScales });
 * console.log(out.shape); // [6, 64]
 * ```
 */
export async function quantizeKv(
  k: Tensor,
  v: Tensor,
  dtype: DType,
  options: QuantizeKvOptions = {},
): Promise<QuantizedKv> {
  const inputs = [["k", asDeviceTensor("k", k)], ["v", asDeviceTensor("v", v)]] as const;
  const device = commonDevice(inputs);
  const { problem, ...results } = quantizingKv(inputs[0][1], inputs[1][1], dtype, options);
  return await useTensors(inputs, async ([key, value]) => {
    const made: DeviceTensor[] = [];
    try {
      for (const { shape, dtype } of [results.k, results.v, results.kvScales]) {
        made.push(device.empty(shape, dtype));
      }
      const named = made.map((tensor) => ["result", tensor] as const);
      await useTensors(
        named,
        ([k, v, kvScales]) => device.engine.append(problem, { key, value, k, v, kvScales }),
      );
      const [k, v, kvScales] = made;
      return { k, v, kvScales };
    } catch (error) {
      for (const tensor of made) tensor.destroy();
      throw error;
    }
  });
}
