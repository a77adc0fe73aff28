/**
 * The storage types of tensors, and what the rest of the library must know of each.
 *
 * @module
 */

/**
 * How the elements of a tensor are stored.
 *
 * - `"float8_e4m3fn"`: bias 7, no infinity, largest value 448, NaN is `S.1111.111`;
 * - `"float8_e5m2"`: bias 15, infinities, largest value 57344 (the high byte of a half).
 */
export type DType = "float32" | "float16" | "bfloat16" | "float8_e4m3fn" | "float8_e5m2";

/** The two formats of one byte an element. */
export type Fp8DType = "float8_e4m3fn" | "float8_e5m2";

/** The dtype of a KV cache: one for keys and values, or one for each. */
export type KvDType = DType | { readonly k: DType; readonly v: DType };

/** The same, checked. */
export interface KvDTypes {
  readonly kDtype: DType;
  readonly vDtype: DType;
}

/** Every dtype, in the order in which messages list them. */
export const DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];

const BYTES: Readonly<Record<DType, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  float8_e4m3fn: 1,
  float8_e5m2: 1,
};

/** Bytes of one element. */
export function bytesPerElement(dtype: DType): number {
  return BYTES[dtype];
}

/** Whether `value` is the name of a dtype (for callers from JavaScript). */
export function isDType(value: unknown): value is DType {
  return typeof value === "string" && Object.hasOwn(BYTES, value);
}

/** Whether `value` is the name of one of the FP8 formats. */
export function isFp8DType(value: unknown): value is Fp8DType {
  return value === "float8_e4m3fn" || value === "float8_e5m2";
}
