/**
 * The small float formats, straight from their definitions: slow, and obviously right.
 *
 * Decoding evaluates the formula of the format. Encoding looks for the nearest of all values that
 * decoding gives, by exact midpoints, ties to the even code. Nothing is shared with the library,
 * which these functions judge.
 *
 * @module
 */

import type { DType, Fp8DType } from "@kvasir/attention";

/** What defines a format: a sign bit, then `exponentBits`, then `mantissaBits`. */
interface Format {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
  /** The largest finite code; what lies above is infinity or NaN. */
  readonly maxFinite: number;
  /** The code of +infinity, or null where there is none. */
  readonly infinity: number | null;
  /** The code of a NaN with a clear sign, as the library writes it. */
  readonly nan: number;
}

/** The formats that fit in 16 bits. */
export type SmallDType = Exclude<DType, "float32">;

const FORMATS: Readonly<Record<SmallDType, Format>> = {
  float8_e4m3fn: {
    exponentBits: 4,
    mantissaBits: 3,
    bias: 7,
    maxFinite: 0x7e,
    infinity: null,
    nan: 0x7f,
  },
  float8_e5m2: {
    exponentBits: 5,
    mantissaBits: 2,
    bias: 15,
    maxFinite: 0x7b,
    infinity: 0x7c,
    nan: 0x7f,
  },
  float16: {
    exponentBits: 5,
    mantissaBits: 10,
    bias: 15,
    maxFinite: 0x7bff,
    infinity: 0x7c00,
    nan: 0x7e00,
  },
  bfloat16: {
    exponentBits: 8,
    mantissaBits: 7,
    bias: 127,
    maxFinite: 0x7f7f,
    infinity: 0x7f80,
    nan: 0x7fc0,
  },
};

/** The bit that holds the sign. */
function signBit(format: Format): number {
  return 1 << (format.exponentBits + format.mantissaBits);
}

/** The value of a code without its sign, by the formula, as if no code were special. */
function magnitude(format: Format, code: number): number {
  const mantissaRange = 2 ** format.mantissaBits;
  const exponent = Math.floor(code / mantissaRange);
  const fraction = (code % mantissaRange) / mantissaRange;
  return exponent === 0
    ? fraction * 2 ** (1 - format.bias)
    : (1 + fraction) * 2 ** (exponent - format.bias);
}

/** The value of a code. */
export function decode(code: number, dtype: SmallDType): number {
  const format = FORMATS[dtype];
  const sign = code & signBit(format) ? -1 : 1;
  const unsigned = code & (signBit(format) - 1);
  if (unsigned === format.infinity) return sign * Infinity;
  if (unsigned > format.maxFinite) return NaN;
  return sign * magnitude(format, unsigned);
}

/**
 * Every magnitude in rising order, and one past the largest: "round first, then test for overflow"
 * means that a value may round to that one, which is what overflow is.
 */
const magnitudes = new Map<SmallDType, Float64Array>();

function magnitudesOf(dtype: SmallDType): Float64Array {
  let all = magnitudes.get(dtype);
  if (!all) {
    const format = FORMATS[dtype];
    all = Float64Array.from({ length: format.maxFinite + 2 }, (_, i) => magnitude(format, i));
    magnitudes.set(dtype, all);
  }
  return all;
}

/** The index of the value nearest to `x >= 0`; halfway between two, the even one. */
function nearest(all: Float64Array, x: number): number {
  let low = 0;
  let high = all.length - 1;
  if (x >= all[high]) return high;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (all[middle] <= x) low = middle;
    else high = middle;
  }
  const midpoint = (all[low] + all[high]) / 2; // exact: a format has few mantissa bits
  if (x === midpoint) return low % 2 === 0 ? low : high;
  return x < midpoint ? low : high;
}

/** How values beyond the largest finite one, and NaN, are written. */
export interface EncodeMode {
  /** True: the largest finite value, NaN without its sign. False: infinity or NaN, signs kept. */
  readonly saturate: boolean;
  /** The sign of a NaN, which a JavaScript number does not show. */
  readonly nanIsNegative?: boolean;
}

/** The code of `value`, rounded once to nearest, ties to even. */
export function encode(value: number, dtype: SmallDType, mode: EncodeMode): number {
  const format = FORMATS[dtype];
  if (Number.isNaN(value)) {
    return !mode.saturate && mode.nanIsNegative ? format.nan | signBit(format) : format.nan;
  }
  const sign = value < 0 || Object.is(value, -0) ? signBit(format) : 0;
  const code = nearest(magnitudesOf(dtype), Math.abs(value));
  if (code <= format.maxFinite) return sign | code;
  return sign | (mode.saturate ? format.maxFinite : format.infinity ?? format.nan);
}

/** `value` rounded to what `dtype` can hold; beyond it, infinity (FP8: the largest value). */
export function roundTo(value: number, dtype: DType): number {
  if (dtype === "float32") return Math.fround(value);
  return decode(encode(value, dtype, { saturate: isFp8(dtype) }), dtype);
}

/** Whether a dtype is one of the two formats of one byte. */
export function isFp8(dtype: DType): dtype is Fp8DType {
  return dtype === "float8_e4m3fn" || dtype === "float8_e5m2";
}
