/**
 * FP8 on the host: `encodeFp8` and `decodeFp8`, in WASM SIMD.
 *
 * @module
 */

import { convertBytes, encodeValues } from "./cpu/codec.ts";
import { type Fp8DType, isFp8DType } from "./dtype.ts";
import { DTypeError, OptionError } from "./errors.ts";
import { show } from "./shape.ts";

/** Options of {@linkcode encodeFp8}. */
export interface EncodeFp8Options {
  /**
   * What becomes of values beyond the format's range. `true`, the default, as CUDA's
   * `__NV_SATFINITE` and ONNX: the largest finite value of the sign, infinities too; NaN is 0x7F.
   * `false`: e4m3fn gives NaN, e5m2 gives infinity; a NaN keeps its sign.
   */
  saturate?: boolean;
  /** `"float16"`: `values` is a `Uint16Array` of the bits of halves. Default: they are numbers. */
  inputDtype?: "float16";
  /**
   * Where the codes go: an array of at least as many bytes, of which the used part is returned.
   * Saves the allocation, which for large slices costs more than the encoding. Default: a new one.
   */
  out?: Uint8Array<ArrayBuffer>;
}

/** Options of {@linkcode decodeFp8}. */
export interface DecodeFp8Options {
  /** `"float16"` gives the bits of halves, in a `Uint16Array`. Default `"float32"`. */
  outDtype?: "float32" | "float16";
  /**
   * Where the values go: an array of at least as many elements, a `Float32Array`, or a `Uint16Array`
   * for `"float16"`; the used part is returned. Default: a new one.
   */
  out?: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
}

/**
 * Encodes numbers as FP8 codes.
 *
 * Rounds once, to nearest even, and only then tests for overflow (OCP 8-bit floating point, 1.0):
 * from float32 where `values` is a `Float32Array`, otherwise from the JavaScript number, which is
 * not the same: 1.0625 + 2^-40 gives 0x39 from an array of numbers, and 0x38 by way of float32.
 *
 * @param values Numbers, or with `inputDtype: "float16"` a `Uint16Array` of half bits.
 * @param dtype The format.
 * @param options See {@linkcode EncodeFp8Options}.
 * @returns One byte a value.
 * @throws {DTypeError} for another dtype; `OptionError` for anything else that does not fit.
 *
 * @example
 * ```ts
 * import { encodeFp8 } from "@kvasir/attention";
 *
 * const codes = encodeFp8([1, -0.5, 1e6], "float8_e4m3fn");
 * console.log(codes); // Uint8Array [ 0x38, 0xb0, 0x7e ]: 1e6 becomes 448
 * ```
 */
export function encodeFp8(
  values: ArrayLike<number>,
  dtype: Fp8DType,
  options: EncodeFp8Options = {},
): Uint8Array<ArrayBuffer> {
  checkFormat(dtype);
  checkOptions(options, ["saturate", "inputDtype", "out"]);
  const { saturate = true, inputDtype } = options;
  if (typeof saturate !== "boolean") {
    throw unfit("options.saturate", saturate, "true or false");
  }
  if (typeof values !== "object" || values === null || !Number.isSafeInteger(values.length)) {
    throw unfit("values", values, "an array or typed array of numbers");
  }
  const codes = outputArray(Uint8Array, options.out, values.length);
  const write = (offset: number, bytes: Uint8Array) => codes.set(bytes, offset);
  if (inputDtype === undefined) {
    encodeValues(values, dtype, { saturate }, write);
  } else if (inputDtype !== "float16") {
    throw unfit("options.inputDtype", inputDtype, `"float16"`);
  } else if (!(values instanceof Uint16Array)) {
    throw unfit("values", values, `a Uint16Array, with inputDtype: "float16"`);
  } else {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    convertBytes(bytes, "float16", dtype, saturate, write);
  }
  return codes;
}

/**
 * Decodes FP8 codes; exact for every code, NaN and infinity included.
 *
 * @param codes One byte a value.
 * @param dtype The format.
 * @param options See {@linkcode DecodeFp8Options}.
 * @returns The values in float32, or the bits of halves with `outDtype: "float16"`.
 * @throws {DTypeError} for another dtype; `OptionError` for anything else that does not fit.
 *
 * @example
 * ```ts
 * import { decodeFp8 } from "@kvasir/attention";
 *
 * const values = decodeFp8(Uint8Array.of(0x38, 0x7e), "float8_e4m3fn");
 * console.log(values); // Float32Array [ 1, 448 ]
 * ```
 */
export function decodeFp8(
  codes: Uint8Array,
  dtype: Fp8DType,
  options: DecodeFp8Options & { outDtype: "float16" },
): Uint16Array<ArrayBuffer>;
/** {@inheritDoc decodeFp8} */
export function decodeFp8(
  codes: Uint8Array,
  dtype: Fp8DType,
  options?: DecodeFp8Options & { outDtype?: "float32" },
): Float32Array<ArrayBuffer>;
export function decodeFp8(
  codes: Uint8Array,
  dtype: Fp8DType,
  options: DecodeFp8Options = {},
): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> {
  checkFormat(dtype);
  checkOptions(options, ["outDtype", "out"]);
  if (!(codes instanceof Uint8Array)) throw unfit("codes", codes, "a Uint8Array");
  const { outDtype = "float32" } = options;
  if (outDtype !== "float32" && outDtype !== "float16") {
    throw unfit("options.outDtype", outDtype, `"float32" or "float16"`);
  }
  const values = outDtype === "float32"
    ? outputArray(Float32Array, options.out, codes.length)
    : outputArray(Uint16Array, options.out, codes.length);
  const target = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  convertBytes(codes, dtype, outDtype, false, (offset, chunk) => target.set(chunk, offset));
  return values;
}

type Output = Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>;

/** The first `length` elements of the caller's array, or a new one. */
function outputArray<T extends Output>(
  Type: { new (length: number): T; readonly name: string },
  out: unknown,
  length: number,
): T {
  if (out === undefined) return new Type(length);
  if (out instanceof Type && out.length >= length) return out.subarray(0, length) as T;
  throw unfit("options.out", out, `a ${Type.name} of at least ${length} elements`);
}

function checkFormat(dtype: unknown): void {
  if (isFp8DType(dtype)) return;
  throw new DTypeError("dtype", {
    got: show(dtype),
    expected: `"float8_e4m3fn" or "float8_e5m2"`,
    hint: "device.tensor() takes the other dtypes.",
  });
}

function checkOptions(options: unknown, known: readonly string[]): void {
  if (typeof options !== "object" || options === null) {
    throw unfit("options", options, "an object");
  }
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new OptionError(`options.${unknown}`, {
    got: "an option that this call does not know",
    expected: `one of ${known.join(", ")}`,
    hint: "Check the spelling; names are camelCase.",
  });
}

function unfit(subject: string, value: unknown, expected: string): OptionError {
  return new OptionError(subject, {
    got: show(value),
    expected,
    hint: "See the documentation of encodeFp8 and decodeFp8.",
  });
}
