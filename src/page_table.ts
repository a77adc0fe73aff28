/**
 * The page table of a paged KV cache: which pages hold which tokens of which sequence. It decides,
 * and its caller moves the bytes; pure, and knows nothing of a device.
 *
 * A sequence always has exactly the pages that its tokens need. Forks share pages; only a last page
 * that is partly filled can be written to while it is shared, and is copied before (copy on write).
 *
 * @module
 */

import { OptionError, OutOfMemoryError, PlanError } from "./errors.ts";
import { checkInteger, checkNames } from "./option_checks.ts";
import { PagePool } from "./page_pool.ts";
import {
  checkAlive,
  lastPage,
  PageSequence,
  type SequenceState,
  stateOf,
} from "./page_sequence.ts";
import { statisticsOf } from "./page_statistics.ts";
import type {
  Append,
  BatchTables,
  PageCopy,
  PageStatistics,
  PageTableOptions,
  Reservation,
} from "./page_types.ts";
import { show } from "./shape.ts";

/** What undo() must know of the reservation that was the table's last change. */
interface LastReservation {
  readonly reservation: Reservation;
  readonly states: readonly SequenceState[];
  readonly counts: readonly number[];
  /** The shared page in whose place each sequence has a copy, or NONE. */
  readonly replaced: readonly number[];
}

const NONE = -1;

/** Pages with reference counts, and the sequences that hold them. */
export class PageTable {
  readonly pageSize: number;
  readonly #pool: PagePool;
  readonly #states: Set<SequenceState> = new Set();
  /** Sequences that want to write to each page, while a reserve() counts; else 0. */
  readonly #claims: Int32Array<ArrayBuffer>;
  #round = 0;
  #last: LastReservation | null = null;

  /**
   * Makes a table whose pages are all free.
   *
   * @throws {OptionError} when an option does not fit.
   */
  constructor(options: PageTableOptions) {
    checkNames(options, ["numPages", "pageSize"]);
    const numPages = checkInteger("options.numPages", options.numPages, 1);
    this.pageSize = checkInteger("options.pageSize", options.pageSize, 1);
    // So that every index, length and slot is an int32, as FlashInfer's are.
    if (numPages * this.pageSize >= 2 ** 31) {
      throw new OptionError("options.numPages", {
        got: `${numPages} pages of ${this.pageSize} tokens`,
        expected: "fewer than 2^31 tokens in all",
        hint: "Check the order of numPages and pageSize.",
      });
    }
    this.#pool = new PagePool(numPages);
    this.#claims = new Int32Array(numPages);
  }

  /** A new sequence without tokens. */
  create(): PageSequence {
    return this.#adopt([], 0);
  }

  /**
   * Makes room for tokens at the ends of sequences: for all of them, or else nothing changes.
   *
   * @param appends Each sequence at most once; 0 tokens change nothing.
   * @throws {OutOfMemoryError} when there are too few free pages; `OptionError` or `DestroyedError`
   *   when an argument does not fit.
   */
  reserve(appends: readonly Append[]): Reservation {
    const { states, counts, total } = this.#checkAppends(appends);
    const asked = this.#pagesFor(states, counts);
    if (asked > this.#pool.numFree) {
      throw new OutOfMemoryError("reserve", {
        got: `${asked} pages asked for, for ${total} tokens of ${states.length} sequences`,
        expected: `at most ${this.#pool.numFree}, the free ones of ${this.#pool.numPages}`,
        hint: "Nothing has changed. Free or truncate sequences, or make a cache of more pages.",
      });
    }
    const copies: PageCopy[] = [];
    const replaced: number[] = [];
    const reservation: Reservation = {
      copies,
      pages: new Int32Array(total),
      places: new Int32Array(total),
    };
    let at = 0;
    for (let i = 0; i < states.length; i++) {
      const copy = counts[i] > 0 ? this.#unshareLast(states[i]) : null;
      if (copy !== null) copies.push(copy);
      replaced.push(copy === null ? NONE : copy.from);
      this.#grow(states[i], counts[i], reservation, at);
      at += counts[i];
    }
    this.#last = { reservation, states, counts, replaced };
    return reservation;
  }

  /**
   * Takes a reservation back, as if it had never been: for callers whose device failed to write.
   *
   * @throws {PlanError} unless it was the table's last change.
   */
  undo(reservation: Reservation): void {
    const last = this.#last;
    if (last === null || last.reservation !== reservation) {
      throw new PlanError("undo", {
        got: "a reservation that is not the table's last change",
        expected: "what the last reserve() gave, before another change",
        hint: "Truncate the sequences instead.",
      });
    }
    const { states, counts, replaced } = last;
    // Backwards, so that the free pages are in their old order too.
    for (let i = states.length - 1; i >= 0; i--) {
      this.#shrink(states[i], states[i].length - counts[i]);
      if (replaced[i] === NONE) continue;
      this.#pool.release(states[i].pages.pop()!);
      this.#pool.share(replaced[i]);
      states[i].pages.push(replaced[i]);
    }
    this.#last = null;
  }

  /**
   * A new sequence of the same tokens, which shares all pages: nothing is copied before one of the
   * two appends.
   *
   * @throws {OptionError} or `DestroyedError` when the sequence does not fit.
   */
  fork(sequence: PageSequence): PageSequence {
    const { pages, length } = this.#check("sequence", sequence);
    for (const page of pages) this.#pool.share(page);
    this.#last = null;
    return this.#adopt([...pages], length);
  }

  /**
   * Forgets the tokens from `length` on, and gives back the pages that held no others.
   *
   * @throws {OptionError} when the sequence is shorter; `DestroyedError`.
   */
  truncate(sequence: PageSequence, length: number): void {
    const state = this.#check("sequence", sequence);
    if (!Number.isInteger(length) || length < 0 || length > state.length) {
      throw new OptionError("length", {
        got: show(length),
        expected: `an integer from 0 to ${state.length}, the sequence's length`,
        hint: "A sequence grows by reserve().",
      });
    }
    this.#shrink(state, length);
    this.#last = null;
  }

  /**
   * Gives all pages of a sequence back. It cannot be used any more.
   *
   * @throws {OptionError} or `DestroyedError` when the sequence does not fit.
   */
  free(sequence: PageSequence): void {
    const state = this.#check("sequence", sequence);
    this.#shrink(state, 0);
    state.isFreed = true;
    this.#states.delete(state);
    this.#last = null;
  }

  /** What the table holds; takes time by the number of sequences, not of pages. */
  statistics(): PageStatistics {
    return statisticsOf(this.#states, this.#pool, this.pageSize);
  }

  /**
   * The pages of sequences, in any order; a sequence may be there more than once.
   *
   * @throws {OptionError} or `DestroyedError` when a sequence does not fit.
   */
  tables(sequences: readonly PageSequence[]): BatchTables {
    checkArray("sequences", sequences, "an array of sequences");
    const states = Array.from(sequences, (sequence, i) => this.#check(`sequences[${i}]`, sequence));
    const indptr = new Int32Array(states.length + 1);
    const lastPageLen = new Int32Array(states.length);
    states.forEach(({ pages, length }, i) => {
      indptr[i + 1] = indptr[i] + pages.length;
      if (length > 0) lastPageLen[i] = length - (pages.length - 1) * this.pageSize;
    });
    const indices = new Int32Array(indptr[states.length]);
    states.forEach(({ pages }, i) => indices.set(pages, indptr[i]));
    return { indptr, indices, lastPageLen };
  }

  #adopt(pages: number[], length: number): PageSequence {
    const state = { table: this, pages, length, isFreed: false, round: 0 };
    this.#states.add(state);
    return new PageSequence(state);
  }

  #check(subject: string, sequence: unknown): SequenceState {
    const state = stateOf(sequence);
    if (state !== null && state.table === this) return checkAlive(subject, state);
    throw new OptionError(subject, {
      got: state === null ? show(sequence) : "a sequence of another table",
      expected: "a sequence of this table",
      hint: "Make one with create() or fork().",
    });
  }

  /** Copies of what was given, so that all that can fail has failed before anything changes. */
  #checkAppends(appends: readonly Append[]) {
    checkArray("appends", appends, "an array of { sequence, tokens }");
    const states: SequenceState[] = [];
    const counts: number[] = [];
    let total = 0;
    this.#round++;
    for (let i = 0; i < appends.length; i++) {
      const append: unknown = appends[i];
      if (typeof append !== "object" || append === null) {
        throw new OptionError(`appends[${i}]`, {
          got: show(append),
          expected: "{ sequence, tokens }",
          hint: "Give one object for each sequence that grows.",
        });
      }
      const { sequence, tokens } = append as Append;
      const state = this.#check(`appends[${i}].sequence`, sequence);
      if (state.round === this.#round) {
        throw new OptionError(`appends[${i}].sequence`, {
          got: "a sequence that an entry before names",
          expected: "each sequence once",
          hint: "Add up its tokens.",
        });
      }
      state.round = this.#round;
      states.push(state);
      counts.push(checkInteger(`appends[${i}].tokens`, tokens, 0));
      total += tokens;
    }
    return { states, counts, total };
  }

  /** The free pages that an append takes, copies of shared pages included. */
  #pagesFor(states: readonly SequenceState[], counts: readonly number[]): number {
    let asked = 0;
    for (let i = 0; i < states.length; i++) {
      const { pages, length } = states[i];
      if (counts[i] === 0) continue;
      asked += Math.ceil((length + counts[i]) / this.pageSize) - pages.length;
      if (length % this.pageSize === 0) continue;
      // Of all that hold a page, the last to come needs no copy.
      const page = lastPage(states[i]);
      if (++this.#claims[page] < this.#pool.references(page)) asked++;
    }
    for (const state of states) {
      if (state.length > 0) this.#claims[lastPage(state)] = 0;
    }
    return asked;
  }

  /** Gives a sequence whose next token goes to a shared page a copy of it. */
  #unshareLast(state: SequenceState): PageCopy | null {
    const tokens = state.length % this.pageSize;
    if (tokens === 0) return null;
    const from = lastPage(state);
    if (this.#pool.references(from) === 1) return null;
    const to = this.#pool.take();
    this.#pool.release(from);
    state.pages[state.pages.length - 1] = to;
    return { from, to, tokens };
  }

  /** Adds tokens to a sequence that may write to its last page; their slots begin at `at`. */
  #grow(state: SequenceState, tokens: number, slots: Reservation, at: number): void {
    const end = at + tokens;
    let place = state.length % this.pageSize;
    while (at < end) {
      if (place === 0) state.pages.push(this.#pool.take());
      const page = lastPage(state);
      for (; at < end && place < this.pageSize; at++, place++) {
        slots.pages[at] = page;
        slots.places[at] = place;
      }
      place = 0;
    }
    state.length += tokens;
  }

  #shrink(state: SequenceState, length: number): void {
    const keep = Math.ceil(length / this.pageSize);
    while (state.pages.length > keep) this.#pool.release(state.pages.pop()!);
    state.length = length;
  }
}

function checkArray(subject: string, value: unknown, expected: string): void {
  if (Array.isArray(value)) return;
  throw new OptionError(subject, {
    got: show(value),
    expected,
    hint: "An empty array is one, too.",
  });
}
