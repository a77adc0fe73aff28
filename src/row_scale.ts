/**
 * The scale of a row that is to be stored in FP8: the one place that says how it is computed. Kernels do
 * the same, to the bit (shaders/append/row_scale.wgsl). Pure.
 *
 * With m, the largest finite magnitude of the row, taken for {@linkcode LEAST_MAGNITUDE} where it is
 * smaller but not 0, and L, the dtype's largest number, each step rounded to float32:
 *
 *   scale = m · (1 / L),   factor = L / m,   code = encode(value · factor)
 *
 * so that attention's code · scale is the value, and the row's largest lies on the largest code. NaN stays
 * NaN, and infinity saturates. A row of zeros, or without a finite number, has a scale of 1.
 *
 * @module
 */

import type { Fp8DType } from "./dtype.ts";

/** The largest number of each dtype. */
export const LARGEST_NUMBER: Readonly<Record<Fp8DType, number>> = {
  float8_e4m3fn: 448,
  float8_e5m2: 57344,
};

/**
 * What smaller magnitudes are taken for: scales and factors are no subnormals then, which GPUs may take
 * for 0, and what is subnormal in the row becomes 0 in any case.
 */
export const LEAST_MAGNITUDE: number = 2 ** -80;

/** What a row is multiplied with, and what stored codes are multiplied with. */
export interface RowScale {
  readonly factor: number;
  readonly scale: number;
}

/** The scale of a row whose largest finite magnitude is `largest`, a float32. */
export function rowScale(largest: number, dtype: Fp8DType): RowScale {
  if (largest === 0) return { factor: 1, scale: 1 };
  const magnitude = Math.max(largest, LEAST_MAGNITUDE);
  const most = LARGEST_NUMBER[dtype];
  // Float64 holds the product exactly, and rounding a quotient of float32 twice is rounding it once.
  return {
    factor: Math.fround(most / magnitude),
    scale: Math.fround(magnitude * Math.fround(1 / most)),
  };
}

/** The largest finite magnitude of a row; 0 where there is none. */
export function largestMagnitude(row: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < row.length; i++) {
    const magnitude = Math.abs(row[i]);
    // Neither NaN nor infinity is less.
    if (magnitude > largest && magnitude < Infinity) largest = magnitude;
  }
  return largest;
}
