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
  /** Whether the builtin packs e4m3's values as halves as it should. */
  readonly byPacking: boolean;
  readonly reason: string;
}

/** From 2^-27 to 2^17: below, between and beyond what the formats hold. */
const FIRST_EXPONENT = 100;
const EXPONENTS = 45;
const VALUES = 96 * EXPONENTS;
const WORDS = 4;
const CODE_QUADS = 256 / 4;

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
    modules: [
      "formats/addition",
      "formats/e4m3_add",
      "formats/e4m3_bits",
      "formats/e5m2_add",
      "formats/f16_add",
      "formats/f16_pack",
    ],
    roles: {},
    constants: { FIRST_EXPONENT, QUADS: VALUES / 4 },
    conditions: {},
  });
  const quads = VALUES / 4;
  const words = await runProbe(device, guard, "rounding probe", code, (quads + CODE_QUADS) * WORDS);
  const byPacking = packsExactly(words.subarray(quads * WORDS));
  const wrong = TESTED.map(([dtype, at]) => [dtype, wrongWords(words, dtype, at)] as const)
    .filter(([, count]) => count > 0);
  return wrong.length === 0
    ? {
      byAddition: true,
      byPacking,
      reason: `additions round ${VALUES} hard values as they should`,
    }
    : {
      byAddition: false,
      byPacking,
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

/** Whether all numbers of e4m3 became the halves that they are. */
function packsExactly(words: Uint32Array): boolean {
  const codes = Uint8Array.from({ length: 256 }, (_, code) => code);
  const halves = new Uint16Array(256);
  const bytes = new Uint8Array(halves.buffer);
  convertBytes(codes, "float8_e4m3fn", "float16", true, (offset, part) => bytes.set(part, offset));
  return codes.every((code) =>
    (code & 0x7f) === 0x7f ||
    (words[(code >> 2) * WORDS + (code >> 1 & 1)] >>> 16 * (code & 1) & 0xffff) === halves[code]
  );
}
