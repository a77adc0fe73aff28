/**
 * Golden vectors of FP8 encoding, from the formats' specification (OCP 8-bit floating point 1.0,
 * CUDA's and PyTorch's conversions): what each input becomes, for both formats and both modes.
 *
 * @module
 */

import { nextFloat32 } from "./values.ts";

/** One input and its codes; the negated input has the same codes with the sign bit. */
export interface Fp8Vector {
  readonly input: number;
  readonly e4m3: { readonly saturating: number; readonly not: number };
  readonly e5m2: { readonly saturating: number; readonly not: number };
}

function vector(input: number, e4m3: number | [number, number], e5m2: number | [number, number]) {
  const pair = (codes: number | [number, number]) =>
    typeof codes === "number"
      ? { saturating: codes, not: codes }
      : { saturating: codes[0], not: codes[1] };
  return { input, e4m3: pair(e4m3), e5m2: pair(e5m2) };
}

/** Every input is a float32. */
export const FP8_VECTORS: readonly Fp8Vector[] = [
  vector(0, 0x00, 0x00),
  vector(448, 0x7e, 0x5f),
  vector(449, 0x7e, 0x5f),
  vector(464, 0x7e, 0x5f),
  vector(nextFloat32(464), [0x7e, 0x7f], 0x5f),
  vector(465, [0x7e, 0x7f], 0x5f),
  vector(480, [0x7e, 0x7f], 0x60),
  vector(Infinity, [0x7e, 0x7f], [0x7b, 0x7c]),
  vector(57344, [0x7e, 0x7f], 0x7b),
  vector(nextFloat32(61440, -1), [0x7e, 0x7f], 0x7b),
  vector(61440, [0x7e, 0x7f], [0x7b, 0x7c]),
  vector(65504, [0x7e, 0x7f], [0x7b, 0x7c]),
  vector(2 ** -9, 0x01, 0x18),
  vector(2 ** -10, 0x00, 0x14),
  vector(nextFloat32(2 ** -10), 0x01, 0x14),
  vector(1.5 * 2 ** -10, 0x01, 0x16),
  vector(1.5 * 2 ** -9, 0x02, 0x1a),
  vector(1.875 * 2 ** -7, 0x08, 0x24),
  vector(2 ** -17, 0x00, 0x00),
  vector(nextFloat32(2 ** -17), 0x00, 0x01),
  vector(1.0625, 0x38, 0x3c),
  vector(1.1875, 0x3a, 0x3d),
];
