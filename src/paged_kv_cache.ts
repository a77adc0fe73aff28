/**
 * The paged KV cache: pages on the device, the page table on the host.
 *
 * @module
 */

import { checkRope, checkRows, type RopeOptions, SLOT_WORDS } from "./append_problem.ts";
import { CacheMemory } from "./cache_memory.ts";
import {
  checkCacheOptions,
  type CheckedCacheOptions,
  type PagedKvCacheOptions,
} from "./cache_options.ts";
import type { CacheTensors } from "./cache_pages.ts";
import { checkSaved, restoreRows, saveRows } from "./cache_saving.ts";
import { type Device, KvasirDevice } from "./device.ts";
import { DestroyedError, OptionError, PlanError } from "./errors.ts";
import { checkInteger, checkNames } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import type { PageSequence } from "./page_sequence.ts";
import { PageTable } from "./page_table.ts";
import type { Append, BatchTables, PageStatistics, Reservation } from "./page_types.ts";
import { decodeSequence } from "./saved_sequence.ts";
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

/** Rows that were reserved, and the layers that still wait for them. */
interface Pending {
  readonly reservation: Reservation;
  readonly slots: Uint32Array<ArrayBuffer>;
  readonly waiting: Set<number>;
}

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
  #pending: Pending | null = null;
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
   * @throws {OptionError} when an option does not fit; `LimitError` when the device is too small. A GPU
   *   says later that it has no memory: what uses the cache first rejects with `OutOfMemoryError` then.
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
    const checked = checkCacheOptions(options, maxStorageBufferBindingSize);
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
    this.#checkAlive();
    this.#checkNothingWaits("reserve");
    const lengths = new Map<PageSequence, number>();
    if (Array.isArray(appends)) {
      for (const append of appends) {
        const sequence = (append as Partial<Append> | null)?.sequence;
        if (isSequence(sequence)) lengths.set(sequence, sequence.length);
      }
    }
    const reservation = this.#table.reserve(appends);
    const { copies, pages, places } = reservation;
    const slots = new Uint32Array(pages.length * SLOT_WORDS);
    let token = 0;
    for (const { sequence, tokens } of appends) {
      const first = lengths.get(sequence)!;
      for (let i = 0; i < tokens; i++, token++) {
        slots.set([pages[token], places[token], first + i], token * SLOT_WORDS);
      }
    }
    const layers = pages.length === 0 ? [] : this.#memory.layers.keys();
    this.#pending = { reservation, slots, waiting: new Set(layers) };
    if (copies.length === 0) return;
    try {
      await this.#memory.copyPages(copies);
    } catch (error) {
      this.undoReserve();
      throw error;
    }
  }

  /**
   * Takes the last {@linkcode PagedKvCache.reserve} back, whatever rows it got: sequences are as long
   * as before.
   *
   * @throws {PlanError} when there is none, or a sequence was forked, truncated or freed since.
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
    this.#table.undo(this.#pending.reservation);
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
    const { pages } = this.#memory;
    const pending = this.#pending;
    if (pending === null || !pending.waiting.has(layer)) {
      throw new PlanError("append", {
        got: pending === null ? "no reservation" : `layer ${layer}, which has its rows already`,
        expected: "tokens that reserve() made room for, once for each layer",
        hint: "Call reserve() once before the layers of a step.",
      });
    }
    const rows = [["key", asDeviceTensor("key", key)], [
      "value",
      asDeviceTensor("value", value),
    ]] as const;
    const named = tensors.map((tensor) => ["the cache", tensor] as const);
    commonDevice([...named, ...rows]);
    const count = checkRows(rows[0][1], rows[1][1], pages);
    const numTokens = pending.slots.length / SLOT_WORDS;
    if (count !== numTokens) {
      throw new PlanError("append", {
        got: `${count} rows`,
        expected: `${numTokens}, one for each reserved token`,
        hint: "Rows follow the order of reserve(): all of the first sequence, then the second's.",
      });
    }
    const { kFactors, vFactors } = this.#options;
    const problem = {
      ...pages,
      numTokens,
      dtype: rows[0][1].dtype,
      kvDtype: pages.dtype,
      slots: pending.slots,
      kFactors,
      vFactors,
      rope: checkRope(options, pages.headDim),
    };
    // Only once: another call of the same layer meanwhile is refused.
    pending.waiting.delete(layer);
    try {
      await useTensors([...rows, ...named], async ([key, value, k, v = k]) => {
        await this.#device.engine.append(problem, { key, value, k, v });
      });
    } catch (error) {
      pending.waiting.add(layer);
      throw error;
    }
    if (pending.waiting.size === 0 && this.#pending === pending) this.#pending = null;
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
   * A sequence as bytes, to be kept or sent: of all layers, with a header and checksums; independent
   * of page size, layout and machine.
   *
   * @throws {PlanError} when a layer still waits for reserved rows; `OptionError` or `DestroyedError`
   *   when the sequence does not fit; `OutOfMemoryError`, `DeviceLostError`.
   */
  async toBytes(sequence: PageSequence): Promise<Uint8Array<ArrayBuffer>> {
    this.#checkAlive();
    this.#checkNothingWaits("toBytes");
    const { indices } = this.#table.tables([sequence]);
    return await saveRows(this.#memory, this.#options, indices, sequence.length);
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
    this.#checkAlive();
    this.#checkNothingWaits("fromBytes");
    const { header, payload } = decodeSequence(bytes);
    checkSaved(header, this.#options);
    const sequence = this.#table.create();
    try {
      this.#table.reserve([{ sequence, tokens: header.tokens }]);
      const { indices } = this.#table.tables([sequence]);
      await restoreRows(this.#memory, { header, payload }, indices);
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

  #checkNothingWaits(subject: string): void {
    const waiting = [...this.#pending?.waiting ?? []];
    if (waiting.length === 0) return;
    throw new PlanError(subject, {
      got: `reserved tokens whose rows layer ${waiting[0]} has not got`,
      expected: "append() for every layer before",
      hint: "Or take the reservation back with undoReserve().",
    });
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

function isSequence(value: unknown): value is PageSequence {
  return typeof value === "object" && value !== null && "length" in value;
}
