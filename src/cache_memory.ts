/**
 * The pages of a cache on the device: what moves rows between them, and in and out.
 *
 * @module
 */

import type { TensorSpec } from "./attention_shapes.ts";
import type { CopiedPart, Storage } from "./backend.ts";
import type { CheckedCacheOptions } from "./cache_options.ts";
import { type CachePages, cachePages } from "./cache_pages.ts";
import { type CachePart, cacheRuns, reorderRows, tokenBytes } from "./cache_runs.ts";
import type { KvasirDevice } from "./device.ts";
import type { PageCopy } from "./page_types.ts";
import { type DeviceTensor, useTensors } from "./tensor.ts";

/** The tensors of all layers. */
export class CacheMemory {
  readonly pages: CachePages;
  /** One tensor a layer, or k and v. */
  readonly layers: readonly (readonly DeviceTensor[])[];
  /** The scales of tokens, one tensor a layer; none where tokens have none. */
  readonly scales: readonly DeviceTensor[];
  /** Of what a layer consists. */
  readonly parts: readonly CachePart[];
  readonly #device: KvasirDevice;

  /** Throws `LimitError`; what fails leaves no tensor behind. */
  constructor(device: KvasirDevice, { numLayers, tensors, scales, layout }: CheckedCacheOptions) {
    this.#device = device;
    this.parts = scales ? ["k", "v", "scales"] : ["k", "v"];
    this.pages = cachePages(tensors, layout);
    const made: DeviceTensor[] = [];
    const make = ({ shape, dtype }: TensorSpec) => {
      const tensor = device.empty(shape, dtype);
      made.push(tensor);
      return tensor;
    };
    try {
      this.layers = Array.from({ length: numLayers }, () => tensors.map(make));
      this.scales = scales ? this.layers.map(() => make(scales)) : [];
    } catch (error) {
      for (const tensor of made) tensor.destroy();
      throw error;
    }
  }

  /** Bytes of all layers. */
  get bytes(): number {
    return this.#tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Copies the first rows of pages to other pages, in every layer. */
  async copyPages(copies: readonly PageCopy[]): Promise<void> {
    for (const part of this.parts) {
      // A GPU cannot copy within a buffer: rows go by way of another.
      const away: CopiedPart[] = [];
      const back: CopiedPart[] = [];
      let size = 0;
      for (const { from, to, tokens } of copies) {
        const [source, target] = [from, to].map((page) =>
          cacheRuns(this.pages, part, [page], tokens)
        );
        source.forEach((run, i) => {
          away.push({ from: run.from, to: size + run.to, size: run.size });
          back.push({ from: size + run.to, to: target[i].from, size: run.size });
        });
        size += tokens * tokenBytes(this.pages, part);
      }
      for (const layer of this.layers.keys()) {
        await this.#between(layer, part, size, async (cache, rows) => {
          await this.#device.engine.copyParts(cache, rows, away);
          await this.#device.engine.copyParts(rows, cache, back);
        });
      }
    }
  }

  /** The rows of the first tokens of some pages, `[tokens, heads, dim]`; scales `[tokens, heads, 2]`. */
  async read(
    layer: number,
    part: CachePart,
    pages: ArrayLike<number>,
    tokens: number,
  ): Promise<Uint8Array> {
    const { engine } = this.#device;
    const size = tokens * tokenBytes(this.pages, part);
    if (size === 0) return new Uint8Array(0);
    const bytes = await this.#between(layer, part, size, async (cache, rows) => {
      await engine.copyParts(cache, rows, cacheRuns(this.pages, part, pages, tokens));
      return await engine.read(rows);
    });
    return reorderRows(bytes, this.pages, part, true);
  }

  /** Writes such rows to the first places of some pages. */
  async write(
    layer: number,
    part: CachePart,
    pages: ArrayLike<number>,
    bytes: Uint8Array,
  ): Promise<void> {
    const { engine } = this.#device;
    if (bytes.length === 0) return;
    const tokens = bytes.length / tokenBytes(this.pages, part);
    const runs = cacheRuns(this.pages, part, pages, tokens)
      .map(({ from, to, size }) => ({ from: to, to: from, size }));
    await this.#between(layer, part, bytes.length, async (cache, rows) => {
      engine.write(rows, 0, reorderRows(bytes, this.pages, part, false));
      await engine.copyParts(rows, cache, runs);
    });
  }

  destroy(): void {
    for (const tensor of this.#tensors) tensor.destroy();
  }

  get #tensors(): readonly DeviceTensor[] {
    return [...this.layers.flat(), ...this.scales];
  }

  #tensorOf(layer: number, part: CachePart): DeviceTensor {
    if (part === "scales") return this.scales[layer];
    const [first, second = first] = this.layers[layer];
    return part === "k" ? first : second;
  }

  /** Runs `work` on the memory of a layer, with other memory for rows that lives as long. */
  async #between<T>(
    layer: number,
    part: CachePart,
    byteLength: number,
    work: (cache: Storage, rows: Storage) => Promise<T>,
  ): Promise<T> {
    return await useTensors([["cache", this.#tensorOf(layer, part)]], async ([cache]) => {
      const rows = this.#device.engine.allocate(byteLength, "rows of a cache");
      try {
        await rows.ready;
        return await work(cache, rows);
      } finally {
        rows.release();
      }
    });
  }
}
