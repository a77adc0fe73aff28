/**
 * A page table beside a plain model of it: an array of rows for each sequence, and a device that is
 * an array of pages. What the table decides is done there, and every sequence is read back.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { OutOfMemoryError } from "@kvasir/attention";
import type { PageSequence } from "../../src/page_sequence.ts";
import { PageTable } from "../../src/page_table.ts";
import type { Reservation } from "../../src/page_types.ts";

/** Something done to a table. Sequences are named by numbers, modulo those that live. */
export type PageOperation =
  | { readonly kind: "create" | "fork" | "free"; readonly pick: number }
  | { readonly kind: "truncate"; readonly pick: number; readonly rest: number }
  | {
    readonly kind: "append";
    readonly picks: readonly (readonly [pick: number, tokens: number])[];
    /** Whether the device fails, so that the reservation is taken back. */
    readonly fails: boolean;
  };

const PICK = fc.nat(1000);

/** Random operations, about half of them appends. */
export const PAGE_OPERATION: fc.Arbitrary<PageOperation> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      picks: fc.array(fc.tuple(PICK, fc.nat(6)), { maxLength: 4 }),
      fails: fc.nat(9).map((n) => n === 0),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("fork" as const), pick: PICK }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("truncate" as const), pick: PICK, rest: fc.nat(12) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("free" as const), pick: PICK }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("create" as const), pick: PICK }) },
);

/** A sequence, and the rows that it should hold. */
interface Modelled {
  readonly sequence: PageSequence;
  readonly rows: number[];
}

/** A row that no sequence should see. */
const POISON = -1;

/** A table, its model and its device. */
export class PageModel {
  readonly table: PageTable;
  readonly #numPages: number;
  readonly #pageSize: number;
  /** The row in each place of each page. Every row ever written is another number. */
  readonly #device: number[];
  #live: Modelled[] = [];
  #nextRow = 0;
  /** What happened, so that a test can see that it tested. */
  readonly seen = { operations: 0, copies: 0, outOfMemory: 0, undone: 0 };

  constructor(numPages: number, pageSize: number) {
    this.table = new PageTable({ numPages, pageSize });
    this.#numPages = numPages;
    this.#pageSize = pageSize;
    this.#device = new Array(numPages * pageSize).fill(POISON);
  }

  /** Does an operation and checks everything. */
  run(operation: PageOperation): void {
    this.seen.operations++;
    if (operation.kind === "create") {
      this.#live.push({ sequence: this.table.create(), rows: [] });
    } else if (operation.kind === "append") {
      this.#append(operation);
    } else if (this.#live.length > 0) {
      const picked = this.#live[operation.pick % this.#live.length];
      const { sequence, rows } = picked;
      if (operation.kind === "fork") {
        this.#live.push({ sequence: this.table.fork(sequence), rows: [...rows] });
      } else if (operation.kind === "truncate") {
        rows.length = Math.max(0, rows.length - operation.rest);
        this.table.truncate(sequence, rows.length);
      } else {
        this.table.free(sequence);
        this.#live = this.#live.filter((other) => other !== picked);
      }
    }
    this.check();
  }

  /** Frees every sequence, in a mixed order, and checks that no page is lost. */
  end(): void {
    for (let i = 0; this.#live.length > 0; i++) {
      this.run({ kind: "free", pick: (i * 7 + 1) % this.#live.length });
    }
    const { usedPages, freePages, sharedPages, sequenceTokens, storedTokens } = this.table
      .statistics();
    assert.deepEqual([usedPages, sharedPages, sequenceTokens, storedTokens], [0, 0, 0, 0]);
    assert.equal(freePages, this.#numPages);
    // The pages are all there, and each once.
    const { pages } = this.table.reserve([
      { sequence: this.table.create(), tokens: this.#numPages * this.#pageSize },
    ]);
    assert.equal(new Set(pages).size, this.#numPages);
  }

  #append({ picks, fails }: PageOperation & { kind: "append" }): void {
    const chosen = new Map<Modelled, number>();
    for (const [pick, tokens] of picks) {
      if (this.#live.length > 0) chosen.set(this.#live[pick % this.#live.length], tokens);
    }
    const { pages: asked, copies } = this.#expected(chosen);
    const { freePages } = this.table.statistics();
    const before = this.#snapshot();
    const appends = [...chosen].map(([{ sequence }, tokens]) => ({ sequence, tokens }));
    let reservation: Reservation;
    try {
      reservation = this.table.reserve(appends);
    } catch (error) {
      assert.ok(error instanceof OutOfMemoryError, String(error));
      assert.ok(asked > freePages, `${asked} pages would fit into ${freePages}`);
      assert.match(error.got, new RegExp(`^${asked} pages asked for`));
      assert.match(error.expected, new RegExp(`^at most ${freePages},`));
      assert.deepEqual(this.#snapshot(), before);
      this.seen.outOfMemory++;
      return;
    }
    assert.equal(this.table.statistics().freePages, freePages - asked);
    assert.equal(reservation.copies.length, copies);
    if (fails) {
      this.table.undo(reservation);
      assert.deepEqual(this.#snapshot(), before);
      this.seen.undone++;
      return;
    }
    this.seen.copies += copies;
    this.#write(reservation, chosen);
  }

  /** What a device does: the copies, in any order, then the rows. */
  #write({ copies, pages, places }: Reservation, chosen: ReadonlyMap<Modelled, number>): void {
    for (const { from, to, tokens } of [...copies].reverse()) {
      for (let place = 0; place < tokens; place++) {
        this.#device[to * this.#pageSize + place] = this.#device[from * this.#pageSize + place];
      }
    }
    let at = 0;
    for (const [{ rows }, tokens] of chosen) {
      for (let i = 0; i < tokens; i++, at++) {
        assert.ok(places[at] >= 0 && places[at] < this.#pageSize);
        this.#device[pages[at] * this.#pageSize + places[at]] = this.#nextRow;
        rows.push(this.#nextRow++);
      }
    }
    assert.deepEqual([pages.length, places.length], [at, at]);
  }

  /** The pages and copies that an append needs at the least. */
  #expected(chosen: ReadonlyMap<Modelled, number>): { pages: number; copies: number } {
    const size = this.#pageSize;
    let pages = 0;
    /** Of each partly filled page, how many want to write to it. */
    const writers = new Map<number, number>();
    for (const [{ sequence, rows }, tokens] of chosen) {
      pages += Math.ceil((rows.length + tokens) / size) - Math.ceil(rows.length / size);
      if (tokens === 0 || rows.length % size === 0) continue;
      const last = sequence.pages[sequence.pages.length - 1];
      writers.set(last, (writers.get(last) ?? 0) + 1);
    }
    let copies = 0;
    for (const [page, count] of writers) copies += Math.min(count, this.#holders(page) - 1);
    return { pages: pages + copies, copies };
  }

  #holders(page: number): number {
    return this.#live.filter(({ sequence }) => sequence.pages.includes(page)).length;
  }

  #snapshot(): unknown {
    const sequences = this.#live.map(({ sequence }) => sequence);
    return [this.table.tables(sequences), this.table.statistics()];
  }

  /** Every sequence reads back its rows, and the statistics are what one counts. */
  check(): void {
    const size = this.#pageSize;
    const order = [...this.#live].reverse();
    const { indptr, indices, lastPageLen } = this.table.tables(order.map((one) => one.sequence));
    assert.equal(indptr.length, order.length + 1);
    assert.equal(indices.length, indptr[order.length]);
    const stored = new Set<number>();
    order.forEach(({ sequence, rows }, i) => {
      const pages = indices.subarray(indptr[i], indptr[i + 1]);
      const slots = Array.from(pages, (page, n) => {
        const tokens = n < pages.length - 1 ? size : lastPageLen[i];
        assert.ok(tokens >= 1 && tokens <= size);
        return Array.from({ length: tokens }, (_, place) => page * size + place);
      }).flat();
      if (pages.length === 0) assert.equal(lastPageLen[i], 0);
      assert.deepEqual(slots.map((slot) => this.#device[slot]), rows);
      assert.equal(sequence.length, rows.length);
      assert.deepEqual(sequence.pages, pages.slice());
      slots.forEach((slot) => stored.add(slot));
    });
    const used = new Set(indices);
    assert.deepEqual(this.table.statistics(), {
      numPages: this.#numPages,
      usedPages: used.size,
      freePages: this.#numPages - used.size,
      sharedPages: [...used].filter((page) => this.#holders(page) > 1).length,
      numSequences: order.length,
      sequenceTokens: order.reduce((sum, { rows }) => sum + rows.length, 0),
      storedTokens: stored.size,
    });
    // What nobody reads may hold anything.
    this.#device.forEach((_, slot) => {
      if (!stored.has(slot)) this.#device[slot] = POISON;
    });
  }
}
