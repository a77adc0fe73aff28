/**
 * Chooses how FP8 codes become floats on a device: every way decodes all 256 codes, and of those that
 * are exact the fastest is taken (fp8_choice.ts). A device that gets codes wrong is worked around.
 *
 * @module
 */

import type { Fp8DType } from "../dtype.ts";
import { ShaderError } from "../errors.ts";
import { decodeFp8 } from "../fp8.ts";
import { needsNanMarks } from "./formats.ts";
import { chooseWay, type Fp8Decoding, type WayTrial } from "./fp8_choice.ts";
import { type Speeds, testKernels, timeKernels, WORDS, WORKGROUP } from "./fp8_timing.ts";
import type { LossGuard } from "./gpu_errors.ts";
import { compileKernel, type Kernel } from "./kernels.ts";
import { linkShader } from "./link.ts";

/** Ways to decode each format; the one with the fewest instructions first. */
const WAYS: Readonly<Record<Fp8DType, readonly string[]>> = {
  float8_e4m3fn: ["formats/e4m3_halves", "formats/e4m3_bits", "formats/e4m3_table"],
  float8_e5m2: ["formats/e5m2_halves", "formats/e5m2_bits", "formats/e5m2_table"],
};

/** A way to decode a format, and its probe, or why that did not compile. */
interface Way {
  readonly dtype: Fp8DType;
  readonly module: string;
  readonly kernel: Kernel | null;
  readonly fault: string | null;
}

/**
 * Tests the ways of both formats on `device`, and times them: a pipeline each, compiled side by side,
 * and two submissions.
 *
 * @param isSoftware Whether the adapter is a CPU, whose times are mostly noise.
 */
export async function probeFp8(
  device: GPUDevice,
  guard: LossGuard,
  isSoftware: boolean,
): Promise<Record<Fp8DType, Fp8Decoding>> {
  const untimed = isSoftware
    ? "the adapter is software"
    : device.features.has("timestamp-query")
    ? null
    : "the device has no timestamp-query";
  const dtypes = Object.keys(WAYS) as Fp8DType[];
  const ways = await Promise.all(
    dtypes.flatMap((dtype) => WAYS[dtype].map((module) => compile(device, guard, dtype, module))),
  );
  const kernels = ways.flatMap(({ kernel }) => kernel ?? []);
  const tested = await testKernels(device, guard, kernels, untimed === null);
  const judged = ways.map((way): Way => {
    const bits = way.kernel && tested.get(way.kernel)!.bits;
    return bits ? { ...way, fault: faultOf(bits, way.dtype) } : way;
  });
  const exact = judged.flatMap(({ kernel, fault }) => kernel && fault === null ? kernel : []);
  const speeds: Speeds = untimed !== null || exact.length === 0
    ? { untimed: untimed ?? "no way is exact" }
    : await timeKernels(
      device,
      guard,
      exact.map((kernel) => [kernel, tested.get(kernel)!.roughTime]),
    );
  const choose = (wanted: Fp8DType) => {
    const trials = judged.filter(({ dtype }) => dtype === wanted)
      .map(({ module, kernel, fault }): WayTrial => ({
        module,
        nanMarks: needsNanMarks(module),
        fault,
        codesPerNanosecond: (speeds.untimed === null && kernel && speeds.of.get(kernel)) || 0,
      }));
    return chooseWay(trials, speeds.untimed);
  };
  return { float8_e4m3fn: choose("float8_e4m3fn"), float8_e5m2: choose("float8_e5m2") };
}

async function compile(
  device: GPUDevice,
  guard: LossGuard,
  dtype: Fp8DType,
  module: string,
): Promise<Way> {
  const code = await linkShader({
    main: "fp8_probe",
    modules: ["pieces"],
    roles: { piece_format: module },
    constants: { PIECE_QUADS: 1, WORDS, WORKGROUP },
    conditions: { piece_1: true, quad_1: true, nan_marks: needsNanMarks(module) },
  });
  try {
    const name = `fp8 probe of ${module}`;
    const kernel = await compileKernel(device, guard, name, code, ["write", "uniform"]);
    return { dtype, module, kernel, fault: null };
  } catch (error) {
    if (!(error instanceof ShaderError)) throw error;
    return { dtype, module, kernel: null, fault: `does not compile: ${error.message}` };
  }
}

function faultOf(bits: Uint32Array, dtype: Fp8DType): string | null {
  const wrong = wrongCodes(bits, dtype);
  return wrong.length === 0 ? null : `gets ${wrong.length} codes wrong (first: ${wrong[0]})`;
}

/** The codes whose decoded bits are not those of their value; any NaN will do for a NaN. */
export function wrongCodes(bits: Uint32Array, dtype: Fp8DType): number[] {
  const codes = Uint8Array.from({ length: 256 }, (_, code) => code);
  const expected = decodeFp8(codes, dtype);
  const expectedBits = new Uint32Array(expected.buffer);
  return [...codes].filter((code) =>
    Number.isNaN(expected[code])
      ? (bits[code] & 0x7fffffff) <= 0x7f800000
      : bits[code] !== expectedBits[code]
  );
}
