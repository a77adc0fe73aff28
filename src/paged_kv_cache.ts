/**
 * The paged KV cache: pages on the device, the page table on the host.
 *
 * @module
 */

import type { RopeOptions } from "./append_problem.ts";
import { CacheFlight } from "./cache_flight.ts";
import { CacheMemory } from "./cache_memory.ts";
import {
  checkCacheOptions,
  type CheckedCacheOptions,
  type PagedKvCacheOptions,
} from "./cache_options.ts";
import type { CacheTensors } from "./cache_pages.ts";
import { checkNothingWaits, checkWaits, PendingRows } from "./cache_pending.ts";
import { checkSaved, restoreRows, saveRows } from "./cache_saving.ts";
import { type Device, KvasirDevice } from "./device.ts";
import { DestroyedError, OptionError, PlanError } from "./errors.ts";
import { checkInteger, checkNames } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import type { PageSequence } from "./page_sequence.ts";
import { PageTable } from "./page_table.ts";
import type { Append, BatchTables, PageCopy, PageStatistics } from "./page_types.ts";
import { decodeSequence, type SavedSequence } from "./saved_sequence.ts";
import { show } from "./shape.ts";
import {
  asDeviceTensor,
  commonDevice,
  type DeviceTensor,
  type Tensor,
  useTensors,
} from "./tensor.ts";

/** What a cache holds. */
export interface CacheStatistics extends PageStatistics {
  /** Bytes of the device's memory that the cache takes, whatever is in it. */
  readonly bytes: number;
  /** Bytes of the pages in use, all layers together. */
  readonly usedBytes: number;
}

/** What WebGPU's kernels want head dims to be multiples of. */
const WEBGPU_DIM_STEP = 8;

/**
 * A paged KV cache: pages of keys and values on the device, in one or more layers, and sequences that
 * share a page table on the host.
 *
 * A step of a decoding loop is {@linkcode PagedKvCache.reserve} once, then for each layer
 * {@linkcode PagedKvCache.append} and attention over {@linkcode PagedKvCache.layer}, with the pages
 * that {@linkcode PagedKvCache.tables} names. Forks share pages, and copy the last one only when one
 * of them writes to it.
 *
 * @example
 * ```ts
 * import { BatchDecodeWithPagedKvCache, openDevice, PagedKvCache } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * const sizes = { pageSize: 16, numKvHeads: 2, headDim: 64 };
 * using cache = PagedKvCache.create(device, { numPages: 8, ...sizes, dtype: "float8_e4m3fn" });
 * const sequence = cache.createSequence();
 *
 * await cache.reserve([{ sequence, tokens: 20 }]); // a prompt
 * using keys = device.tensor(random(20 * 2 * 64), [20, 2, 64], "float16");
 * using values = device.tensor(random(20 * 2 * 64), [20, 2, 64], "float16");
 * await cache.append(0, keys, values);
 * const other = cache.fork(sequence); // shares its two pages
 *
 * using decode = new BatchDecodeWithPagedKvCache(device);
 * const batch = cache.tables([sequence, other]);
 * decode.plan({ ...batch, numQoHeads: 6, ...sizes, qDtype: "float16", kvDtype: "float8_e4m3fn" });
 * using q = device.tensor(random(2 * 6 * 64), [2, 6, 64], "float16");
 * using out = await decode.run(q, cache);
 * console.log(out.shape, cache.statistics().sharedPages); // [2, 6, 64] 2
 * ```
 */
export class PagedKvCache implements Disposable {
  readonly #device: KvasirDevice;
  readonly #options: CheckedCacheOptions;
  readonly #memory: CacheMemory;
  readonly #table: PageTable;
  readonly #flight: CacheFlight = new CacheFlight();
  #pending: PendingRows | null = null;
  #destroyed = false;

  private constructor(device: KvasirDevice, options: CheckedCacheOptions, memory: CacheMemory) {
    this.#device = device;
    this.#options = options;
    this.#memory = memory;
    this.#table = new PageTable({ numPages: options.numPages, pageSize: options.pageSize });
  }

  /**
   * Makes a cache whose pages are all free.
   *
   * @param device Where the pages are.
   * @param options See {@linkcode PagedKvCacheOptions}.
   * @throws {OptionError} when an option does not fit; `LimitError` when the device is too small, or on
   *   WebGPU a head dim is no multiple of 8. A GPU says later that it has no memory: what uses
   *   the cache first rejects with `OutOfMemoryError` then.
   */
  static create(device: Device, options: PagedKvCacheOptions): PagedKvCache {
    if (!(device instanceof KvasirDevice)) {
      throw new OptionError("device", {
        got: show(device),
        expected: "a device",
        hint: "Open one with openDevice().",
      });
    }
    const { maxStorageBufferBindingSize = Infinity } = device.report.limits;
    const dimStep = device.backend === "webgpu" ? WEBGPU_DIM_STEP : 1;
    const checked = checkCacheOptions(options, maxStorageBufferBindingSize, dimStep);
    return new PagedKvCache(device, checked, new CacheMemory(device, checked));
  }

  /** The device that holds it. */
  get device(): Device {
    return this.#device;
  }

  /** The layout of its pages. */
  get kvLayout(): KvLayout {
    return this.#options.layout;
  }

  /** Its layers. */
  get numLayers(): number {
    return this.#options.numLayers;
  }

  /** A new sequence without tokens. */
  createSequence(): PageSequence {
    this.#checkAlive();
    return this.#table.create();
  }

  /**
   * Makes room for new tokens at the ends of sequences, in all layers: for all of them, or else nothing
   * changes. Shared pages that will be written to are copied. The rows are then given layer by layer.
   *
   * @param appends Each sequence at most once, with its number of new tokens.
   * @throws {OutOfMemoryError} when there are too few free pages, with pages asked for and free;
   *   `PlanError` when a layer still waits for rows that were reserved before; `OptionError` or
   *   `DestroyedError` when an argument does not fit; `DeviceLostError`.
   */
  async reserve(appends: readonly Append[]): Promise<void> {
    while (this.#flight.isBusy) await this.#flight.landed();
    this.#checkReady("reserve");
    await this.#flight.write(this.#reserve(appends));
  }

  async #reserve(appends: readonly Append[]): Promise<void> {
    let copied: readonly PageCopy[] = [];
    for (;;) {
      const reservation = this.#table.reserve(appends);
      if (isSame(reservation.copies, copied)) {
        this.#pending = new PendingRows(reservation, appends, this.numLayers);
        return;
      }
      // Pages are copied while they are free: when that fails, nothing has changed. A sequence that
      // is freed meanwhile may change which pages are taken.
      this.#table.undo(reservation);
      copied = reservation.copies;
      await this.#memory.copyPages(copied);
      this.#checkAlive();
    }
  }

  /**
   * Takes the last {@linkcode PagedKvCache.reserve} back, whatever rows it got: sequences are as long
   * as before. Those that were freed or truncated since stay so; forks made since keep their tokens.
   *
   * @throws {PlanError} when there is none, or every layer has got its rows; `DestroyedError`.
   */
  undoReserve(): void {
    this.#checkAlive();
    if (this.#pending === null) {
      throw new PlanError("undoReserve", {
        got: "no reservation",
        expected: "a call of reserve() before",
        hint: "Truncate sequences to forget older tokens.",
      });
    }
    this.#pending.undo(this.#table);
    this.#pending = null;
  }

  /**
   * Writes the rows of all reserved tokens into a layer, converted to the cache's dtype on the device.
   *
   * @param layer The layer's number, from 0.
   * @param key `[tokens, Hkv, D]` in float32, float16 or bfloat16, in the order of the reservation.
   * @param value `[tokens, Hkv, Dv]` in key's dtype.
   * @param options Whether keys are turned by their positions: `posEncodingMode`, `ropeScale`,
   *   `ropeTheta`. Default: they are stored as they come.
   * @throws {PlanError} when nothing is reserved, or the layer has its rows already, or the number of
   *   rows is another; `ShapeError`, `DTypeError`, `OptionError`, `DestroyedError`,
   *   `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU. The
   *   rows may be given again then.
   */
  async append(
    layer: number,
    key: Tensor,
    value: Tensor,
    options: RopeOptions = {},
  ): Promise<void> {
    this.#checkAlive();
    checkNames(options, ["posEncodingMode", "ropeScale", "ropeTheta"]);
    const tensors = this.#tensorsOf(layer);
    const pending = checkWaits(this.#pending, layer);
    const rows = [
      ["key", asDeviceTensor("key", key)],
      ["value", asDeviceTensor("value", value)],
    ] as const;
    const scales = this.#memory.scales.slice(layer, layer + 1);
    const named = [...tensors, ...scales].map((tensor) => ["the cache", tensor] as const);
    commonDevice([...named, ...rows]);
    const specs = [rows[0][1], rows[1][1]] as const;
    const problem = pending.problem(specs, this.#memory.pages, this.#options, options);
    pending.writing.add(layer);
    try {
      await this.#flight.write(
        useTensors([...rows, ...named], async (storages) => {
          const [key, value, k] = storages;
          const v = storages[1 + tensors.length];
          const kvScales = storages[2 + tensors.length];
          await this.#device.engine.append(problem, { key, value, k, v, kvScales });
        }),
      );
      pending.waiting.delete(layer);
    } finally {
      pending.writing.delete(layer);
    }
    if (pending.waiting.size === 0 && this.#pending === pending) this.#pending = null;
  }

  /**
   * Both steps at once, for caches of one layer: {@linkcode PagedKvCache.reserve}, then
   * {@linkcode PagedKvCache.append} to layer 0.
   *
   * @param appends As `reserve` takes them.
   * @param key As `append` takes it, like `value` and `options`.
   * @throws {OptionError} when the cache has more layers; else what the two throw. Sequences are as
   *   long as before then.
   */
  async reserveAndAppend(
    appends: readonly Append[],
    key: Tensor,
    value: Tensor,
    options: RopeOptions = {},
  ): Promise<void> {
    this.#checkAlive();
    if (this.numLayers !== 1) {
      throw new OptionError("cache", {
        got: `a cache of ${this.numLayers} layers`,
        expected: "one layer",
        hint: "Call reserve() once, then append() for each layer.",
      });
    }
    await this.reserve(appends);
    const pending = this.#pending;
    try {
      // Without tokens, no layer waits, but rows must still be none.
      if (pending !== null && pending.waiting.size === 0) pending.waiting.add(0);
      await this.append(0, key, value, options);
    } catch (error) {
      if (pending !== null && this.#pending === pending) {
        pending.undo(this.#table);
        this.#pending = null;
      }
      throw error;
    }
  }

  /**
   * A new sequence of the same tokens, which shares all pages: nothing is copied before one of the two
   * grows.
   *
   * @throws {OptionError} or `DestroyedError` when the sequence does not fit.
   */
  fork(sequence: PageSequence): PageSequence {
    this.#checkAlive();
    return this.#table.fork(sequence);
  }

  /**
   * Forgets the tokens from `length` on, such as those of a rejected speculation.
   *
   * @throws {OptionError} when the sequence is shorter; `DestroyedError`.
   */
  truncate(sequence: PageSequence, length: number): void {
    this.#checkAlive();
    this.#table.truncate(sequence, length);
  }

  /**
   * Gives the pages of a sequence back, as far as no other shares them. It cannot be used any more.
   *
   * @throws {OptionError} or `DestroyedError` when the sequence does not fit.
   */
  free(sequence: PageSequence): void {
    this.#checkAlive();
    this.#table.free(sequence);
  }

  /** What the cache holds, and the memory that it takes. */
  statistics(): CacheStatistics {
    this.#checkAlive();
    const { bytes } = this.#memory;
    const statistics = this.#table.statistics();
    const usedBytes = bytes / statistics.numPages * statistics.usedPages;
    return { ...statistics, bytes, usedBytes };
  }

  /**
   * The pages of sequences, as plans of paged attention take them (`indptr`, `indices`,
   * `lastPageLen`), reserved tokens included.
   *
   * @throws {OptionError} or `DestroyedError` when a sequence does not fit.
   */
  tables(sequences: readonly PageSequence[]): BatchTables {
    this.#checkAlive();
    return this.#table.tables(sequences);
  }

  /**
   * A layer as attention's `run` takes it: a tensor, or a pair where v's head dim is another or a tensor
   * would be too large for the device's kernels. It lives as long as the cache.
   *
   * @param layer Its number, from 0.
   * @throws {OptionError} when there is no such layer; `DestroyedError`.
   */
  layer(layer: number): CacheTensors {
    this.#checkAlive();
    const [first, second] = this.#tensorsOf(layer);
    return second === undefined ? first : [first, second];
  }

  /**
   * The scales of a layer's tokens, as attention's `run` takes them beside {@linkcode
   * PagedKvCache.layer}: float32 `[numPages, Hkv, pageSize, 2]`; null for a cache without. They live as
   * long as the cache, and a run over the cache itself finds them.
   *
   * @param layer Its number, from 0.
   * @throws {OptionError} when there is no such layer; `DestroyedError`.
   */
  scales(layer: number): Tensor | null {
    this.#checkAlive();
    this.#tensorsOf(layer);
    return this.#memory.scales[layer] ?? null;
  }

  /**
   * A sequence as bytes, to be kept or sent: of all layers, with a header and checksums; independent
   * of page size, layout and machine. What is called before it ends waits with writing, so the bytes
   * are of one time.
   *
   * @throws {PlanError} when a layer still waits for reserved rows; `OptionError` or `DestroyedError`
   *   when the sequence does not fit; `OutOfMemoryError`, `DeviceLostError`.
   */
  async toBytes(sequence: PageSequence): Promise<Uint8Array<ArrayBuffer>> {
    this.#checkAlive();
    this.#table.tables([sequence]);
    while (this.#flight.isWriting) await this.#flight.written();
    this.#checkReady("toBytes");
    const { indices } = this.#table.tables([sequence]);
    return await this.#flight.read(
      saveRows(this.#memory, this.#options, indices, sequence.length),
    );
  }

  /**
   * A new sequence of what {@linkcode PagedKvCache.toBytes} gave, of this cache or another with the
   * same layers, heads, head dims and dtype.
   *
   * @throws {OptionError} for bytes that are foreign, cut or changed, or of a cache that does not fit;
   *   `DTypeError` for another dtype; `OutOfMemoryError` when there are too few free pages;
   *   `PlanError` when a layer still waits for reserved rows; `DestroyedError`, `DeviceLostError`. The
   *   cache is as it was then.
   */
  async fromBytes(bytes: Uint8Array): Promise<PageSequence> {
    while (this.#flight.isBusy) await this.#flight.landed();
    this.#checkReady("fromBytes");
    const saved = decodeSequence(bytes);
    checkSaved(saved.header, this.#options);
    return await this.#flight.write(this.#restore(saved));
  }

  async #restore(saved: SavedSequence): Promise<PageSequence> {
    const sequence = this.#table.create();
    try {
      this.#table.reserve([{ sequence, tokens: saved.header.tokens }]);
      const { indices } = this.#table.tables([sequence]);
      await restoreRows(this.#memory, saved, indices);
      return sequence;
    } catch (error) {
      this.#table.free(sequence);
      throw error;
    }
  }

  /** Frees the pages on the device; a second call does nothing. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#memory.destroy();
  }

  /** As {@linkcode PagedKvCache.destroy}. */
  [Symbol.dispose](): void {
    this.destroy();
  }

  #tensorsOf(layer: number): readonly DeviceTensor[] {
    const number = checkInteger("layer", layer, 0);
    if (number < this.#memory.layers.length) return this.#memory.layers[number];
    throw new OptionError("layer", {
      got: show(layer),
      expected: `an integer from 0 to ${this.#memory.layers.length - 1}, the cache's last layer`,
      hint: "numLayers says how many a cache has.",
    });
  }

  #checkReady(subject: string): void {
    this.#checkAlive();
    checkNothingWaits(this.#pending, subject);
  }

  #checkAlive(): void {
    this.#device.checkAlive("cache");
    if (!this.#destroyed) return;
    throw new DestroyedError("cache", {
      got: "a destroyed cache",
      expected: "a live one",
      hint: "Destroy it (or leave its `using` block) only after its last use.",
    });
  }
}

function isSame(copies: readonly PageCopy[], others: readonly PageCopy[]): boolean {
  return copies.length === others.length && copies.every(({ from, to, tokens }, i) => {
    const other = others[i];
    return from === other.from && to === other.to && tokens === other.tokens;
  });
}
