/**
 * Paged caches beside a plain model: for each sequence and layer, its rows in the cache's dtype.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Device, type DType, PagedKvCache, type PageSequence } from "@kvasir/attention";
import { encodeValues } from "../../src/cpu/codec.ts";
import { bytesPerElement } from "../../src/dtype.ts";
import { decodeSequence } from "../../src/saved_sequence.ts";
import { ownScale } from "./append.ts";
import { normals } from "./values.ts";

/** The sizes of a cache under test. */
export interface CacheSpec {
  readonly numPages: number;
  readonly pageSize: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly headDimV?: number;
  readonly dtype: DType;
  readonly kvLayout?: "NHD" | "HND";
  readonly numLayers?: number;
  readonly kvScales?: "none" | "token";
}

/** A sequence of the model: of each layer k, v and perhaps the scales, as one stored row a token. */
export interface ModelSequence {
  readonly handle: PageSequence;
  readonly rows: Uint8Array[][];
}

/** Values in the cache's dtype. */
export function stored(values: Float32Array, dtype: DType): Uint8Array {
  const bytes = new Uint8Array(values.length * bytesPerElement(dtype));
  encodeValues(values, dtype, { saturate: true }, (offset, chunk) => bytes.set(chunk, offset));
  return bytes;
}

/** Multiplies each head of a token's row by its own factor; their scales. */
function scaleRow(row: Float32Array, dim: number, dtype: DType): number[] {
  return Array.from({ length: row.length / dim }, (_, head) => {
    const part = row.subarray(head * dim, (head + 1) * dim);
    const { factor, scale } = ownScale(part, dtype);
    part.forEach((x, i) => part[i] = x * factor);
    return scale;
  });
}

/** A cache with its model. */
export class ModelCache {
  readonly cache: PagedKvCache;
  readonly sequences: ModelSequence[] = [];
  readonly #spec: Required<CacheSpec>;
  readonly #device: Device;
  #seed = 1;

  constructor(device: Device, spec: CacheSpec) {
    this.#device = device;
    this.#spec = {
      headDimV: spec.headDim,
      kvLayout: "NHD",
      numLayers: 1,
      kvScales: "none",
      ...spec,
    };
    this.cache = PagedKvCache.create(device, spec);
  }

  create(): ModelSequence {
    return this.#adopt(this.cache.createSequence(), this.#noRows());
  }

  /** Appends tokens to sequences, in every layer. */
  async append(appends: readonly (readonly [ModelSequence, number])[]): Promise<void> {
    const { numLayers, numKvHeads, headDim, headDimV, dtype } = this.#spec;
    await this.cache.reserve(
      appends.map(([{ handle: sequence }, tokens]) => ({ sequence, tokens })),
    );
    const total = appends.reduce((sum, [, tokens]) => sum + tokens, 0);
    if (total === 0) return;
    for (let layer = 0; layer < numLayers; layer++) {
      const rows = [headDim, headDimV].map((dim) =>
        normals(total * numKvHeads * dim, this.#seed++)
      );
      using key = this.#device.tensor(rows[0], [total, numKvHeads, headDim], "float32");
      using value = this.#device.tensor(rows[1], [total, numKvHeads, headDimV], "float32");
      await this.cache.append(layer, key, value);
      let at = 0;
      for (const [sequence, tokens] of appends) {
        for (let i = 0; i < tokens; i++, at++) {
          const [kScales, vScales] = [headDim, headDimV].map((dim, part) => {
            const size = numKvHeads * dim;
            const row = rows[part].slice(at * size, (at + 1) * size);
            const own = this.#hasScales ? scaleRow(row, dim, dtype) : [];
            sequence.rows[this.#parts * layer + part].push(stored(row, dtype));
            return own;
          });
          if (!this.#hasScales) continue;
          const scales = Float32Array.from(
            kScales.flatMap((scale, head) => [scale, vScales[head]]),
          );
          sequence.rows[this.#parts * layer + 2].push(stored(scales, "float32"));
        }
      }
    }
  }

  fork({ handle, rows }: ModelSequence): ModelSequence {
    return this.#adopt(this.cache.fork(handle), rows.map((part) => [...part]));
  }

  truncate({ handle, rows }: ModelSequence, length: number): void {
    this.cache.truncate(handle, length);
    for (const part of rows) part.length = length;
  }

  free(sequence: ModelSequence): void {
    this.cache.free(sequence.handle);
    this.sequences.splice(this.sequences.indexOf(sequence), 1);
  }

  /** Saves a sequence, and restores it as another. */
  async copy(sequence: ModelSequence): Promise<ModelSequence> {
    const handle = await this.cache.fromBytes(await this.cache.toBytes(sequence.handle));
    return this.#adopt(handle, sequence.rows.map((part) => [...part]));
  }

  /** Every live sequence has its rows, bit by bit. */
  async check(label: string): Promise<void> {
    for (const [i, { handle, rows }] of this.sequences.entries()) {
      const { header, payload } = decodeSequence(await this.cache.toBytes(handle));
      assert.equal(header.tokens, rows[0].length, `${label}: sequence ${i}`);
      const wanted = rows.flat();
      let at = 0;
      for (const [row, bytes] of wanted.entries()) {
        const got = payload.subarray(at, at += bytes.length);
        assert.deepEqual(got, bytes, `${label}: sequence ${i}, row ${row} of all layers`);
      }
    }
  }

  #noRows(): Uint8Array[][] {
    return Array.from({ length: this.#parts * this.#spec.numLayers }, () => []);
  }

  get #hasScales(): boolean {
    return this.#spec.kvScales === "token";
  }

  get #parts(): number {
    return this.#hasScales ? 3 : 2;
  }

  #adopt(handle: PageSequence, rows: Uint8Array[][]): ModelSequence {
    const sequence = { handle, rows };
    this.sequences.push(sequence);
    return sequence;
  }
}
