/**
 * Planning of the quantize kernel: from a conversion to constants, windows and grids. Pure.
 *
 * @module
 */

import type { ConvertProblem } from "../convert_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import type { Capabilities } from "./capabilities.ts";
import {
  convertingParts,
  pieceElements,
  pieceQuads,
  roundingName,
  type WaysOfRounding,
} from "./convert_pieces.ts";
import type { Window } from "./decode_windows.ts";
import { foldGrid } from "./grid.ts";
import type { KernelRequest } from "./kernels.ts";

/** A part of the tensors that fits bindings. */
export interface QuantizeDispatch {
  readonly numPieces: number;
  readonly source: Window;
  readonly result: Window;
  readonly grid: readonly [number, number];
}

/** Dispatches of shaders/quantize.wgsl. */
export interface QuantizePlan {
  readonly kernel: KernelRequest;
  readonly factor: number;
  readonly dispatches: readonly QuantizeDispatch[];
}

const WORKGROUP = 256;
/** Pieces that a lane has in flight, where there are many. */
const ROUNDS = 4;
/** Workgroups from which on a device counts as full. */
const FULL = 1024;
/** What parts begin at a multiple of, in elements: bindings want it of bytes, at most. */
const ALIGNMENT = 256;

/** Plans a conversion. */
export function planQuantize(
  problem: ConvertProblem,
  capabilities: Capabilities,
  rounding: WaysOfRounding,
): QuantizePlan {
  const { count, from, to, factor } = problem;
  const { maxStorageBufferBindingSize } = capabilities.limits;
  const conversion = { from, to, isScaled: factor !== 1 };
  const quads = pieceQuads(conversion, []);
  const parts = convertingParts(conversion, quads, { fp8: capabilities.fp8, rounding });
  const [fromBytes, toBytes] = [bytesPerElement(from), bytesPerElement(to)];
  const most = Math.floor(maxStorageBufferBindingSize / Math.max(fromBytes, toBytes));
  const step = Math.max(ALIGNMENT, most - most % ALIGNMENT);
  const pieces = Math.ceil(Math.min(count, step) / pieceElements(quads));
  const rounds = pieces >= WORKGROUP * ROUNDS * FULL ? ROUNDS : 1;
  const dispatches: QuantizeDispatch[] = [];
  for (let first = 0; first < count; first += step) {
    const elements = Math.min(step, count - first);
    const numPieces = Math.ceil(elements / pieceElements(quads));
    dispatches.push({
      numPieces,
      source: { offset: first * fromBytes, size: elements * fromBytes },
      result: { offset: first * toBytes, size: elements * toBytes },
      grid: foldGrid(Math.ceil(numPieces / (WORKGROUP * rounds)), capabilities.limits),
    });
  }
  return {
    kernel: {
      name: `quantize.${from}.${to}.rounds${rounds}` + (conversion.isScaled ? ".scaled" : "") +
        roundingName(rounding),
      main: "quantize",
      ...parts,
      constants: { ...parts.constants, ROUNDS: rounds, WORKGROUP },
      bindings: ["uniform", "read", "write"],
    },
    factor,
    dispatches,
  };
}
