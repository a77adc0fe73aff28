/**
 * Tokens that a cache has made room for, and the layers that still wait for their rows. Pure.
 *
 * @module
 */

import {
  type AppendProblem,
  checkRope,
  checkRows,
  type RopeOptions,
  SLOT_WORDS,
} from "./append_problem.ts";
import type { TensorSpec } from "./attention_shapes.ts";
import type { CheckedCacheOptions } from "./cache_options.ts";
import type { CachePages } from "./cache_pages.ts";
import { PlanError } from "./errors.ts";
import { type PageSequence, stateOf } from "./page_sequence.ts";
import type { PageTable } from "./page_table.ts";
import type { Append, Reservation } from "./page_types.ts";
import { scaleStrides } from "./token_scales.ts";

/** A reservation until every layer has its rows. */
export class PendingRows {
  /** Layers without their rows. */
  readonly waiting: Set<number>;
  /** Those of them whose rows are being written. */
  readonly writing: Set<number> = new Set();
  readonly reservation: Reservation;
  readonly #slots: Uint32Array<ArrayBuffer>;
  /** The sequences, and how long they were before. */
  readonly #lengths: readonly (readonly [PageSequence, number])[];

  /** What `table` has reserved for `appends` just now, for so many layers. */
  constructor(reservation: Reservation, appends: readonly Append[], numLayers: number) {
    const { pages, places } = reservation;
    this.reservation = reservation;
    this.waiting = new Set(pages.length === 0 ? [] : Array(numLayers).keys());
    this.#slots = new Uint32Array(pages.length * SLOT_WORDS);
    this.#lengths = appends.map(({ sequence, tokens }) => [sequence, sequence.length - tokens]);
    let token = 0;
    for (const [sequence, first] of this.#lengths) {
      for (let position = first; position < sequence.length; position++, token++) {
        this.#slots.set([pages[token], places[token], position], token * SLOT_WORDS);
      }
    }
  }

  /** Gives the room back. */
  undo(table: PageTable): void {
    try {
      table.undo(this.reservation);
    } catch (error) {
      if (!(error instanceof PlanError)) throw error;
      // The table has changed since: what is left of the reservation is cut off.
      for (const [sequence, length] of this.#lengths) {
        const isFreed = stateOf(sequence)?.isFreed ?? true;
        if (!isFreed && sequence.length > length) table.truncate(sequence, length);
      }
    }
  }

  /** What appends rows to a layer. Throws as checks of rows and options do, and `PlanError`. */
  problem(
    [key, value]: readonly [TensorSpec, TensorSpec],
    pages: CachePages,
    { kFactors, vFactors, scales, numKvHeads, pageSize }: CheckedCacheOptions,
    options: RopeOptions,
  ): AppendProblem {
    const count = checkRows(key, value, pages);
    const numTokens = this.#slots.length / SLOT_WORDS;
    if (count !== numTokens) {
      throw new PlanError("append", {
        got: `${count} rows`,
        expected: `${numTokens}, one for each reserved token`,
        hint: "Rows follow the order of reserve(): all of the first sequence, then the second's.",
      });
    }
    return {
      ...pages,
      numTokens,
      dtype: key.dtype,
      slots: this.#slots,
      kFactors,
      vFactors,
      kvScales: scales && scaleStrides({ numKvHeads, tokens: pageSize }),
      rope: checkRope(options, pages.headDim),
    };
  }
}

/** Checks that a layer may have its rows now. Throws `PlanError`. */
export function checkWaits(pending: PendingRows | null, layer: number): PendingRows {
  const isDone = pending !== null && pending.waiting.size > 0 &&
    (!pending.waiting.has(layer) || pending.writing.has(layer));
  if (pending !== null && pending.waiting.size > 0 && !isDone) return pending;
  throw new PlanError("append", {
    got: isDone ? `layer ${layer}, which has its rows already` : "no reservation",
    expected: "tokens that reserve() made room for, once for each layer",
    hint: "Call reserve() once before the layers of a step.",
  });
}

/** Checks that no layer waits for rows. Throws `PlanError`. */
export function checkNothingWaits(pending: PendingRows | null, subject: string): void {
  if (pending === null || pending.waiting.size === 0) return;
  const [layer] = pending.waiting;
  throw new PlanError(subject, {
    got: `reserved tokens whose rows layer ${layer} has not got`,
    expected: "append() for every layer before",
    hint: "Or take the reservation back with undoReserve().",
  });
}
