/**
 * Tables of turns on the GPU, one for each head dim and frequency; they grow with the positions.
 *
 * @module
 */

import type { RopeParameters } from "../attention_problem.ts";
import { smallBuffer } from "./buffers.ts";
import { ropeTable } from "./rope_table.ts";

/** Positions that a table covers at least. */
const LEAST_POSITIONS = 4096;

/** A table and where its coarse turns begin. */
interface GpuRopeTable {
  readonly buffer: GPUBuffer;
  readonly coarse: number;
  readonly positions: number;
}

/** The tables of one device. */
export class RopeTables {
  readonly #device: GPUDevice;
  readonly #tables = new Map<string, GpuRopeTable>();
  /** Tables that larger ones replaced, which plans may still read; few, since positions double. */
  readonly #outgrown: GPUBuffer[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A table that covers `positions`. */
  get(headDim: number, rope: RopeParameters, positions: number): GpuRopeTable {
    const key = `${headDim} ${rope.scale} ${rope.theta}`;
    const known = this.#tables.get(key);
    if (known && known.positions >= positions) return known;
    if (known) this.#outgrown.push(known.buffer);
    const covered = 2 ** Math.ceil(Math.log2(Math.max(LEAST_POSITIONS, positions)));
    const { turns, coarse } = ropeTable(headDim, rope, covered);
    const words = new Uint32Array(turns.buffer);
    const buffer = smallBuffer(this.#device, "storage", "turns", words);
    const table = { buffer, coarse, positions: covered };
    this.#tables.set(key, table);
    return table;
  }

  /** Frees all tables. */
  destroy(): void {
    for (const { buffer } of this.#tables.values()) buffer.destroy();
    for (const buffer of this.#outgrown) buffer.destroy();
    this.#tables.clear();
    this.#outgrown.length = 0;
  }
}
