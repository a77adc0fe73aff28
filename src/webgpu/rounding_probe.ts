/**
 * Chooses how a device rounds to smaller formats: by a float addition where its adder rounds to nearest
 * even, as it should, else by integers, which take three times the instructions.
 *
 * @module
 */

import { convertBytes } from "../cpu/codec.ts";
import type { DType } from "../dtype.ts";
import type { LossGuard } from "./gpu_errors.ts";
import { linkShader } from "./link.ts";
import { runProbe } from "./probe.ts";

/** The way that a device rounds. */
export interface Rounding {
  /** Whether additions round as they should. */
  readonly byAddition: boolean;
  readonly reason: string;
}

/** From 2^-27 to 2^17: below, between and beyond what the formats hold. */
const FIRST_EXPONENT = 100;
const EXPONENTS = 45;
const VALUES = 96 * EXPONENTS;
const WORDS = 4;

/** The dtypes that are tested, and their first word in a quad's. */
const TESTED: readonly (readonly [DType, at: number])[] = [
  ["float8_e4m3fn", 0],
  ["float8_e5m2", 1],
  ["float16", 2],
];

/** Tests the way by addition on `device`; one tiny dispatch. */
export async function probeRounding(device: GPUDevice, guard: LossGuard): Promise<Rounding> {
  const code = await linkShader({
    main: "rounding_probe",
    modules: ["formats/addition", "formats/e4m3_add", "formats/e5m2_add", "formats/f16_add"],
    roles: {},
    constants: { FIRST_EXPONENT, QUADS: VALUES / 4 },
    conditions: {},
  });
  const words = await runProbe(device, guard, "rounding probe", code, VALUES / 4 * WORDS);
  const wrong = TESTED.map(([dtype, at]) => [dtype, wrongWords(words, dtype, at)] as const)
    .filter(([, count]) => count > 0);
  return wrong.length === 0
    ? { byAddition: true, reason: `additions round ${VALUES} hard values as they should` }
    : {
      byAddition: false,
      reason: wrong.map(([dtype, count]) => `additions get ${count} words of ${dtype} wrong`)
        .join("; "),
    };
}

/** The values of shaders/rounding_probe.wgsl. */
export function hardValues(): Float32Array<ArrayBuffer> {
  const bits = Uint32Array.from({ length: VALUES }, (_, i) => {
    const place = Math.floor(i / 3) % 32;
    const mantissa = place < 16 ? place << 19 : (place * 389 % 2048) << 12;
    const exponent = FIRST_EXPONENT + Math.floor(i / 96);
    const sign = (Math.floor(i / 3) % 2) * 2 ** 31;
    return sign + (exponent * 2 ** 23 + mantissa + i % 3 - 1);
  });
  return new Float32Array(bits.buffer);
}

/** How many words of a dtype's codes are not those of the codec. */
function wrongWords(words: Uint32Array, dtype: DType, at: number): number {
  let wrong = 0;
  const each = dtype === "float16" ? 2 : 1;
  convertBytes(new Uint8Array(hardValues().buffer), "float32", dtype, true, (offset, bytes) => {
    const expected = new Uint32Array(bytes.slice().buffer);
    expected.forEach((word, i) => {
      const place = offset / 4 + i;
      const quad = Math.floor(place / each);
      if (words[quad * WORDS + at + place % each] !== word) wrong++;
    });
  });
  return wrong;
}
