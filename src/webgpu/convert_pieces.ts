/**
 * The pieces in which a kernel converts rows of one dtype to another: what shaders/convert.wgsl is
 * linked with. Pure.
 *
 * @module
 */

import { bytesPerElement, type DType } from "../dtype.ts";
import { inputModule, outputModule } from "./formats.ts";
import { type KernelRequest, oneOf } from "./kernels.ts";

const QUAD = 4;
/** Words that a lane loads or stores at once. */
const MOST_WORDS = 4;

/** What is converted. */
export interface Conversion {
  readonly from: DType;
  readonly to: DType;
  /** Whether there are factors. */
  readonly isScaled: boolean;
}

/** The largest power of two of quads that a piece may have, so that `elements` are whole pieces. */
export function pieceQuads({ from, to }: Conversion, elements: readonly number[]): number {
  const wider = Math.max(bytesPerElement(from), bytesPerElement(to));
  let quads = MOST_WORDS / wider;
  while (elements.some((count) => count % (quads * QUAD) !== 0)) quads /= 2;
  return quads;
}

/** Elements of a piece. */
export function pieceElements(quads: number): number {
  return quads * QUAD;
}

/** Modules, roles, constants and conditions of a kernel that converts pieces of so many quads. */
export function convertingParts(
  { from, to, isScaled }: Conversion,
  quads: number,
): Pick<KernelRequest, "modules" | "roles" | "constants" | "conditions"> {
  // A quad has as many words as an element has bytes.
  const [fromWords, toWords] = [bytesPerElement(from), bytesPerElement(to)];
  return {
    modules: ["formats/rounding", "pieces", "convert"],
    roles: { kv_format: inputModule(from), out_format: outputModule(to) },
    constants: { PIECE_QUADS: quads, PIECE_WORDS: quads * fromWords },
    conditions: {
      ...oneOf("piece", quads * fromWords),
      ...oneOf("quad", fromWords),
      ...oneOf("out", quads * toWords),
      ...oneOf("out_quad", toWords),
      nan_marks: false,
      scaled: isScaled,
      copies: from === to && !isScaled,
    },
  };
}
