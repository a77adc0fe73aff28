/**
 * Conversion of whole tensors on the device: `quantize` and `dequantize`.
 *
 * @module
 */

import {
  type ConvertProblem,
  dequantizing,
  type QuantizeOptions,
  quantizing,
} from "./convert_problem.ts";
import type { DType } from "./dtype.ts";
import { asDeviceTensor, type DeviceTensor, type Tensor, useTensors } from "./tensor.ts";

/**
 * A tensor in another dtype: `value · (1 / scale)`, with 1 / scale and the product in float32, then
 * rounded once, to nearest even; FP8 saturates, as {@linkcode encodeFp8} does.
 *
 * With `scale: 1` and the tensor's own dtype, it is a copy. GPUs may take float32 below 2^-126 for 0.
 *
 * @param tensor Any shape and dtype.
 * @param dtype The result's.
 * @param options `scale`, a number above 0: what {@linkcode dequantize}, or attention with `kScale`
 *   or `vScale`, multiplies with. Default 1.
 * @returns A new tensor of the same shape.
 * @throws {DTypeError} or `OptionError` when an argument does not fit; `LimitError`,
 *   `DestroyedError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU.
 *
 * @example
 * ```ts
 * import { openDevice, quantize } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * using k = device.tensor([1, -2, 1000, 3.1], [2, 2], "float16");
 * using codes = await quantize(k, "float8_e4m3fn", { scale: 4 });
 * console.log(await codes.readBytes()); // Uint8Array [ 0x28, 0xb0, 0x78, 0x34 ]
 * ```
 */
export async function quantize(
  tensor: Tensor,
  dtype: DType,
  options: QuantizeOptions = {},
): Promise<Tensor> {
  const source = asDeviceTensor("tensor", tensor);
  return await convert(source, quantizing(source, dtype, options));
}

/**
 * The values that a quantized tensor stands for: `value · scale`, computed in float32, then rounded
 * once, to nearest even. The reverse of {@linkcode quantize}.
 *
 * @param tensor Any shape and dtype.
 * @param dtype `"float32"`, `"float16"` or `"bfloat16"`.
 * @param options `scale`, a number above 0. Default 1.
 * @returns A new tensor of the same shape.
 * @throws {DTypeError} or `OptionError` when an argument does not fit; else as
 *   {@linkcode quantize}.
 *
 * @example
 * ```ts
 * import { dequantize, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * using codes = device.tensorFromBytes(Uint8Array.of(0x28, 0xb0), [2], "float8_e4m3fn");
 * using values = await dequantize(codes, "float32", { scale: 4 });
 * console.log(await values.read()); // Float32Array [ 1, -2 ]
 * ```
 */
export async function dequantize(
  tensor: Tensor,
  dtype: DType,
  options: QuantizeOptions = {},
): Promise<Tensor> {
  const source = asDeviceTensor("tensor", tensor);
  return await convert(source, dequantizing(source, dtype, options));
}

/** Allocates the result and hands over to the backend; a failure leaves no tensor behind. */
async function convert(source: DeviceTensor, problem: ConvertProblem): Promise<Tensor> {
  const { device } = source;
  return await useTensors([["tensor", source]], async ([sourceStorage]) => {
    const result = device.empty(source.shape, problem.to);
    try {
      await useTensors(
        [["result", result]],
        ([storage]) => device.engine.convert(problem, { source: sourceStorage, result: storage }),
      );
      return result;
    } catch (error) {
      result.destroy();
      throw error;
    }
  });
}
