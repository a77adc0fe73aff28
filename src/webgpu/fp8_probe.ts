/**
 * Chooses how FP8 codes become floats on a device: every way decodes all 256 codes, and the first
 * whose values are all exact is taken. A device that gets codes wrong is worked around.
 *
 * @module
 */

import type { Fp8DType } from "../dtype.ts";
import { decodeFp8 } from "../fp8.ts";
import { needsNanMarks } from "./formats.ts";
import type { LossGuard } from "./gpu_errors.ts";
import { linkShader } from "./link.ts";
import { runProbe } from "./probe.ts";

/** The way that a device decodes a format. */
export interface Fp8Decoding {
  /** The shader module, below shaders/; null where no way is exact, so that none is used. */
  readonly module: string | null;
  /** Why this one, or why none. */
  readonly reason: string;
}

/** Ways to decode each format; the one with the fewest instructions first. */
const WAYS: Readonly<Record<Fp8DType, readonly string[]>> = {
  float8_e4m3fn: ["formats/e4m3_halves", "formats/e4m3_bits"],
  float8_e5m2: ["formats/e5m2_halves", "formats/e5m2_bits"],
};

/** Tests the ways of both formats on `device`. */
export async function probeFp8(
  device: GPUDevice,
  guard: LossGuard,
): Promise<Record<Fp8DType, Fp8Decoding>> {
  return {
    float8_e4m3fn: await choose(device, guard, "float8_e4m3fn"),
    float8_e5m2: await choose(device, guard, "float8_e5m2"),
  };
}

async function choose(device: GPUDevice, guard: LossGuard, dtype: Fp8DType): Promise<Fp8Decoding> {
  const failures: string[] = [];
  for (const module of WAYS[dtype]) {
    const code = await linkShader({
      main: "fp8_probe",
      modules: ["pieces"],
      roles: { piece_format: module },
      constants: { PIECE_QUADS: 1 },
      conditions: { piece_1: true, quad_1: true, nan_marks: needsNanMarks(module) },
    });
    const bits = await runProbe(device, guard, `fp8 probe of ${module}`, code, 256);
    const wrong = wrongCodes(bits, dtype);
    if (wrong.length === 0) {
      const reason = ["all 256 codes are exact", ...failures].join("; ");
      return { module, reason };
    }
    failures.push(`${module} gets ${wrong.length} codes wrong (first: ${wrong[0]})`);
  }
  return { module: null, reason: failures.join("; ") };
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
