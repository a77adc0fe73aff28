/**
 * Which shader module reads or writes a dtype.
 *
 * @module
 */

import { bytesPerElement, type DType, isFp8DType } from "../dtype.ts";
import { ShaderError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import type { Fp8Decoding } from "./fp8_choice.ts";

/** A module below shaders/, and what those who use it must know. */
export interface Format {
  readonly module: string;
  /** Words of a quad (4 elements). */
  readonly quadWords: 1 | 2 | 4;
  /** Whether it decodes NaN codes as numbers, so that they must be found beside it. */
  readonly nanMarks: boolean;
}

/** Modules whose NaN codes must be marked. */
const MARKED: readonly string[] = ["formats/e4m3_halves"];

const WIDE_MODULES: Readonly<Record<string, string>> = {
  float32: "formats/f32",
  float16: "formats/f16",
  bfloat16: "formats/bf16",
};
const FP8_ENCODERS: Readonly<Record<string, string>> = {
  float8_e4m3fn: "formats/e4m3_encode",
  float8_e5m2: "formats/e5m2_encode",
};

/** Whether a module's NaN codes must be marked. */
export function needsNanMarks(module: string): boolean {
  return MARKED.includes(module);
}

/** How a cache of `dtype` is read. Throws `ShaderError` where no way is exact on this device. */
export function cacheFormat(dtype: DType, { fp8 }: Pick<Capabilities, "fp8">): Format {
  const module = isFp8DType(dtype) ? exact(dtype, fp8[dtype], "module") : WIDE_MODULES[dtype];
  return {
    module,
    quadWords: bytesPerElement(dtype) as 1 | 2 | 4,
    nanMarks: needsNanMarks(module),
  };
}

/**
 * How q and states are read: NaN codes are NaN at once, since speed counts less there. Throws
 * `ShaderError` where no way is exact on this device.
 */
export function inputModule(dtype: DType, { fp8 }: Pick<Capabilities, "fp8">): string {
  return isFp8DType(dtype) ? exact(dtype, fp8[dtype], "unmarked") : WIDE_MODULES[dtype];
}

function exact(dtype: DType, decoding: Fp8Decoding, kind: "module" | "unmarked"): string {
  const module = decoding[kind];
  if (module !== null) return module;
  throw new ShaderError(`decoding ${dtype}`, {
    got: decoding.reason,
    expected: "one way that is exact for all 256 codes",
    hint: "Use 16 bits on this device, and please report it with device.report.",
  });
}

/** How `dtype` is written. */
export function outputModule(dtype: DType): string {
  return WIDE_MODULES[dtype] ?? FP8_ENCODERS[dtype];
}

/** Encoders that round by addition, where the device's adder passed its test. */
const ADDING: Readonly<Partial<Record<DType, string>>> = {
  float16: "formats/f16_add",
  float8_e4m3fn: "formats/e4m3_add",
  float8_e5m2: "formats/e5m2_add",
};

/** How `dtype` is written in bulk. */
export function bulkOutputModule(dtype: DType, { byAddition }: { byAddition: boolean }): string {
  return (byAddition ? ADDING[dtype] : undefined) ?? outputModule(dtype);
}
