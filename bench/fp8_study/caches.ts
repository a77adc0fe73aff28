/**
 * The caches that the study compares: formats, and how finely they are scaled.
 *
 * @module
 */

import {
  calibrate,
  decodeFp8,
  type Device,
  type DType,
  encodeFp8,
  type Fp8DType,
  quantizeKv,
  type Tensor,
} from "@kvasir/attention";
import type { Inputs } from "./inputs.ts";

/**
 * What shares a scale: all of k (and of v), each head, or each token of each head. A row's largest value
 * becomes the format's largest with "token", and lies between two codes with "between".
 */
export type Granularity = "none" | "tensor" | "head" | "token" | "between";

/** One way to store k and v. */
export interface Cache {
  readonly dtype: DType;
  readonly scale: Granularity;
}

/** The names that people use. */
const NAMES: Readonly<Record<DType, string>> = {
  float32: "f32",
  float16: "f16",
  bfloat16: "bf16",
  float8_e4m3fn: "e4m3",
  float8_e5m2: "e5m2",
};
const SCALE_NAMES: Readonly<Record<Granularity, string>> = {
  none: "no scale",
  tensor: "a tensor",
  head: "a head",
  token: "a token and head",
  between: "a token and head, between codes",
};

/** A cache as tables call it. */
export function cacheName({ dtype, scale }: Cache): string {
  return isFp8(dtype) ? `${NAMES[dtype]}, ${SCALE_NAMES[scale]}` : NAMES[dtype];
}

/** All that are compared, the best first within a format. */
export const CACHES: readonly Cache[] = [
  { dtype: "float32", scale: "none" },
  { dtype: "float16", scale: "none" },
  { dtype: "bfloat16", scale: "none" },
  ...(["float8_e4m3fn", "float8_e5m2"] as const).flatMap((dtype) =>
    (["none", "tensor", "head", "token"] as const).map((scale) => ({ dtype, scale }))
  ),
];

/** What shows why scales of tokens help, where they do. */
export const BETWEEN_CODES: readonly Cache[] = (["float8_e4m3fn", "float8_e5m2"] as const)
  .map((dtype) => ({ dtype, scale: "between" }));

/** k or v as a cache holds it. */
export interface Stored {
  /** [Hkv, L, D], for attention. */
  readonly tensor: Tensor;
  /** What `tensor` must be multiplied with, a number for each head. */
  readonly scale: Float32Array<ArrayBuffer>;
  /** And with scales of tokens, a number for each head and token. */
  readonly tokenScales?: Float32Array<ArrayBuffer>;
  /** The values that these stand for, in float32. */
  readonly values: Float32Array<ArrayBuffer>;
}

function isFp8(dtype: DType): dtype is Fp8DType {
  return dtype === "float8_e4m3fn" || dtype === "float8_e5m2";
}

/** Stores k or v. */
export async function store(
  device: Device,
  values: Float32Array<ArrayBuffer>,
  { numKvHeads, length, headDim }: Inputs,
  { dtype, scale: granularity }: Cache,
): Promise<Stored> {
  const shape = [numKvHeads, length, headDim];
  const inner = length * headDim;
  if (granularity === "token" && isFp8(dtype)) {
    return await storeByToken(device, values, shape, dtype);
  }
  if (granularity === "between" && isFp8(dtype)) {
    // Simulated: the host multiplies, attention sees float32.
    const rounded = scaledRows(values, headDim, dtype, BETWEEN[dtype]);
    const scale = new Float32Array(numKvHeads).fill(1);
    return { tensor: device.tensor(rounded, shape, "float32"), scale, values: rounded };
  }
  const scale = await scalesOf(values, shape, dtype, granularity);
  const scaled = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    scaled[i] = values[i] * Math.fround(1 / scale[Math.floor(i / inner)]);
  }
  const tensor = device.tensor(scaled, shape, dtype);
  const decoded = await tensor.read();
  for (let i = 0; i < decoded.length; i++) decoded[i] *= scale[Math.floor(i / inner)];
  return { tensor, scale, values: decoded };
}

/** Stores k or v as the library does where each token and head has a scale. */
async function storeByToken(
  device: Device,
  values: Float32Array<ArrayBuffer>,
  shape: readonly number[],
  dtype: Fp8DType,
): Promise<Stored> {
  const [numKvHeads, , headDim] = shape;
  using rows = device.tensor(values, shape, "float32");
  const { k, v, kvScales } = await quantizeKv(rows, rows, dtype, { kvLayout: "HND" });
  const tokenScales = (await kvScales.read()).filter((_, i) => i % 2 === 0);
  v.destroy();
  kvScales.destroy();
  const decoded = await k.read();
  for (let i = 0; i < decoded.length; i++) decoded[i] *= tokenScales[Math.floor(i / headDim)];
  const scale = new Float32Array(numKvHeads).fill(1);
  return { tensor: k, scale, tokenScales, values: decoded };
}

async function scalesOf(
  values: Float32Array<ArrayBuffer>,
  shape: readonly number[],
  dtype: DType,
  granularity: Granularity,
): Promise<Float32Array<ArrayBuffer>> {
  const ones = new Float32Array(shape[0]).fill(1);
  if (!isFp8(dtype) || granularity === "none") return ones;
  if (granularity === "tensor") return ones.fill((await calibrate(values, { dtype })).scale);
  const byHead = { dtype, granularity: "head", kvLayout: "HND", shape } as const;
  return (await calibrate(values, byHead)).scale;
}

/** What a row's largest value becomes with "between": the middle of two codes. */
const BETWEEN = { float8_e4m3fn: 432, float8_e5m2: 53248 };

/** Values as rows hold them that each have a scale of their own, which makes their largest so large. */
function scaledRows(
  values: Float32Array<ArrayBuffer>,
  headDim: number,
  dtype: Fp8DType,
  largest: number,
): Float32Array<ArrayBuffer> {
  const rows = values.length / headDim;
  const scales = new Float32Array(rows);
  const scaled = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    let max = 0;
    for (let i = row * headDim; i < (row + 1) * headDim; i++) {
      max = Math.max(max, Math.abs(values[i]));
    }
    scales[row] = max === 0 ? 1 : max / largest;
    const inverse = Math.fround(1 / scales[row]);
    for (let i = row * headDim; i < (row + 1) * headDim; i++) scaled[i] = values[i] * inverse;
  }
  const decoded = decodeFp8(encodeFp8(scaled, dtype), dtype);
  for (let i = 0; i < decoded.length; i++) decoded[i] *= scales[Math.floor(i / headDim)];
  return decoded;
}
