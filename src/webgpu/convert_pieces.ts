/**
 * The pieces in which a kernel converts rows of one dtype to another: what shaders/convert.wgsl is
 * linked with. Pure.
 *
 * @module
 */

import { bytesPerElement, type DType } from "../dtype.ts";
import type { Capabilities } from "./capabilities.ts";
import { bulkOutputModule, cacheFormat } from "./formats.ts";
import { type KernelRequest, oneOf } from "./kernels.ts";
import type { Rounding } from "./rounding_probe.ts";

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

/** What of a device's {@linkcode Rounding} converting depends on. */
export type WaysOfRounding = Pick<Rounding, "byAddition" | "byPacking">;

/** How a device converts, as its self-tests say. */
export interface ConvertingWays {
  readonly fp8: Capabilities["fp8"];
  readonly rounding: WaysOfRounding;
}

/** The way of rounding, as kernels' names have it. */
export function roundingName({ byAddition, byPacking }: WaysOfRounding): string {
  return (byAddition ? ".add" : ".integers") + (byPacking ? ".pack" : "");
}

/** Modules, roles, constants and conditions of a kernel that converts pieces of so many quads. */
export function convertingParts(
  { from, to, isScaled }: Conversion,
  quads: number,
  { fp8, rounding }: ConvertingWays,
): Pick<KernelRequest, "modules" | "roles" | "constants" | "conditions"> {
  // A quad has as many words as an element has bytes.
  const [fromWords, toWords] = [bytesPerElement(from), bytesPerElement(to)];
  const { module: input, nanMarks } = cacheFormat(from, { fp8 });
  return {
    modules: ["formats/rounding", "formats/addition", "formats/f16_pack", "pieces", "convert"],
    roles: { piece_format: input, out_format: bulkOutputModule(to, rounding) },
    constants: { PIECE_QUADS: quads },
    conditions: {
      ...oneOf("piece", quads * fromWords),
      ...oneOf("quad", fromWords),
      ...oneOf("out", quads * toWords),
      ...oneOf("out_quad", toWords),
      nan_marks: nanMarks,
      // Numbers of e4m3 are halves; its NaN codes are known by their marks.
      packs: rounding.byPacking && nanMarks && to === "float16" && !isScaled,
      scaled: isScaled,
      copies: from === to && !isScaled,
    },
  };
}
