/**
 * The turns of rotary position encoding, in the order of shaders/rope.wgsl. Computed in float64:
 * float32 angles are off by 0.01 at position 100,000.
 *
 * @module
 */

import type { RopeParameters } from "../attention_problem.ts";

/** Positions whose turns stand side by side; beyond, every so many. */
const FINE_POSITIONS = 256;
const QUAD = 4;

/** The table for positions below `positions`. */
export interface RopeTable {
  readonly turns: Float32Array<ArrayBuffer>;
  /** Where the coarse turns begin, in vectors of 4. */
  readonly coarse: number;
}

/** Turns by position · theta^(-2i / headDim) / scale, for i below headDim / 2. */
export function ropeTable(
  headDim: number,
  { scale, theta }: RopeParameters,
  positions: number,
): RopeTable {
  const half = headDim / 2;
  const coarseRows = Math.max(1, Math.ceil(positions / FINE_POSITIONS));
  const turns = new Float32Array((FINE_POSITIONS + coarseRows) * half * 2);
  const frequencies = Float64Array.from(
    { length: half },
    (_, i) => theta ** (-2 * i / headDim) / scale,
  );
  for (let row = 0; row < FINE_POSITIONS + coarseRows; row++) {
    const position = row < FINE_POSITIONS ? row : (row - FINE_POSITIONS) * FINE_POSITIONS;
    for (let i = 0; i < half; i++) {
      const at = row * half * 2 + Math.floor(i / QUAD) * 2 * QUAD + i % QUAD;
      turns[at] = Math.cos(position * frequencies[i]);
      turns[at + QUAD] = Math.sin(position * frequencies[i]);
    }
  }
  return { turns, coarse: FINE_POSITIONS * half * 2 / QUAD };
}
