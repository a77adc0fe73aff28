/**
 * Conversion of a tensor to another dtype: the description that both backends carry out, and the
 * checks that make one of a call's arguments. Pure.
 *
 * @module
 */

import type { TensorSpec } from "./attention_shapes.ts";
import { type DType, DTYPES, isDType, isFp8DType } from "./dtype.ts";
import { DTypeError } from "./errors.ts";
import { checkNames, checkScale } from "./option_checks.ts";
import { elementCount, show } from "./shape.ts";

/**
 * Elements to be multiplied in float32 and rounded to another dtype, once, to nearest even; FP8
 * saturates. Between one dtype and itself with a factor of 1, bits stay as they are.
 */
export interface ConvertProblem {
  readonly count: number;
  readonly from: DType;
  readonly to: DType;
  /** A float32. */
  readonly factor: number;
}

/** Options of {@linkcode quantize} and {@linkcode dequantize}. */
export interface QuantizeOptions {
  /** What the quantized values are multiplied with to be the real ones: a number above 0. Default 1. */
  scale?: number;
}

/** Checks a call of `quantize`. Throws `DTypeError` or `OptionError`. */
export function quantizing(
  { shape, dtype }: TensorSpec,
  to: unknown,
  options: QuantizeOptions,
): ConvertProblem {
  if (!isDType(to)) throw unfit(to, DTYPES);
  const scale = checkOptions(options);
  return { count: elementCount(shape), from: dtype, to, factor: Math.fround(1 / scale) };
}

/** Checks a call of `dequantize`. Throws `DTypeError` or `OptionError`. */
export function dequantizing(
  { shape, dtype }: TensorSpec,
  to: unknown,
  options: QuantizeOptions,
): ConvertProblem {
  if (!isDType(to) || isFp8DType(to)) throw unfit(to, DTYPES.filter((one) => !isFp8DType(one)));
  const scale = checkOptions(options);
  return { count: elementCount(shape), from: dtype, to, factor: Math.fround(scale) };
}

function checkOptions(options: QuantizeOptions): number {
  checkNames(options, ["scale"]);
  return checkScale("options.scale", options.scale ?? 1);
}

function unfit(value: unknown, dtypes: readonly DType[]): DTypeError {
  return new DTypeError("dtype", {
    got: show(value),
    expected: `one of ${dtypes.join(", ")}`,
    hint: "quantize() gives any dtype, dequantize() those of 16 bits and more.",
  });
}
