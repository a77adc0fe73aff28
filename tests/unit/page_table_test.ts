/** The page table, without a device: every sequence keeps its rows, and every page its count. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { OutOfMemoryError } from "@kvasir/attention";
import { PageSequence, type SequenceState } from "../../src/page_sequence.ts";
import { PageTable } from "../../src/page_table.ts";
import type { Append, PageTableOptions } from "../../src/page_types.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";
import { PAGE_OPERATION, PageModel } from "../support/page_model.ts";

/** A table of 6 pages of 4 tokens, with one sequence of this length. */
function tableWith(tokens: number) {
  const table = new PageTable({ numPages: 6, pageSize: 4 });
  const sequence = table.create();
  table.reserve([{ sequence, tokens }]);
  return { table, sequence };
}

Deno.test("PageTable keeps every sequence's rows, whatever happens to the others", () => {
  const seen = { operations: 0, copies: 0, outOfMemory: 0, undone: 0 };
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.constantFrom(1, 2, 3, 4, 16),
      fc.array(PAGE_OPERATION, { minLength: 60, maxLength: 90, size: "max" }),
      (numPages, pageSize, operations) => {
        const model = new PageModel(numPages, pageSize);
        // Most operations do nothing before there is a sequence.
        model.run({ kind: "create", pick: 0 });
        for (const operation of operations) model.run(operation);
        model.end();
        for (const name of Object.keys(seen) as (keyof typeof seen)[]) {
          seen[name] += model.seen[name];
        }
      },
    ),
    { numRuns: 500 },
  );
  // About half of what is usual.
  assert.ok(seen.operations >= 30_000, `${seen.operations} operations`);
  assert.ok(seen.copies >= 500, `${seen.copies} copies on write`);
  assert.ok(seen.outOfMemory >= 2000, `${seen.outOfMemory} times too few pages`);
  assert.ok(seen.undone >= 400, `${seen.undone} reservations taken back`);
});

Deno.test("reserve() fills pages one after another", () => {
  const { table, sequence } = tableWith(3);
  const other = table.create();
  const { copies, pages, places } = table.reserve([
    { sequence: other, tokens: 1 },
    { sequence, tokens: 6 },
  ]);
  assert.deepEqual(copies, []);
  assert.deepEqual(pages, Int32Array.of(1, 0, 2, 2, 2, 2, 3));
  assert.deepEqual(places, Int32Array.of(0, 3, 0, 1, 2, 3, 0));
  assert.deepEqual(sequence.pages, Int32Array.of(0, 2, 3));
  assert.equal(sequence.length, 9);
});

Deno.test("fork() copies a shared page when one appends to it, and full pages never", () => {
  const { table, sequence } = tableWith(6);
  const forked = table.fork(sequence);
  assert.deepEqual(forked.pages, sequence.pages);
  assert.equal(table.statistics().sharedPages, 2);
  const first = table.reserve([{ sequence: forked, tokens: 1 }]);
  assert.deepEqual(first.copies, [{ from: 1, to: 2, tokens: 2 }]);
  assert.deepEqual([first.pages[0], first.places[0]], [2, 2]);
  const second = table.reserve([{ sequence, tokens: 1 }]);
  assert.deepEqual([second.copies, second.pages[0], second.places[0]], [[], 1, 2]);
  assert.equal(table.statistics().sharedPages, 1);
});

Deno.test("reserve() copies for all but one of those that append to a page", () => {
  const { table, sequence } = tableWith(1);
  const forks = [table.fork(sequence), table.fork(sequence)];
  const { copies, pages } = table.reserve(
    [sequence, ...forks].map((sequence) => ({ sequence, tokens: 1 })),
  );
  assert.deepEqual(copies.map(({ from, tokens }) => [from, tokens]), [[0, 1], [0, 1]]);
  assert.deepEqual(pages, Int32Array.of(1, 2, 0));
});

Deno.test("reserve() of no tokens changes nothing", () => {
  const { table, sequence } = tableWith(5);
  const forked = table.fork(sequence);
  for (const appends of [[], [{ sequence: forked, tokens: 0 }]]) {
    const { copies, pages, places } = table.reserve(appends);
    assert.deepEqual([copies.length, pages.length, places.length], [0, 0, 0]);
  }
  assert.deepEqual(forked.pages, sequence.pages);
});

Deno.test("reserve() takes the last page, and not one more", () => {
  const { table, sequence } = tableWith(21);
  const other = table.create();
  const before = [table.statistics(), table.tables([sequence, other])];
  const appends = [{ sequence, tokens: 3 }, { sequence: other, tokens: 1 }];
  assert.throws(() => table.reserve(appends), (error) => {
    assert.ok(error instanceof OutOfMemoryError);
    assert.equal(error.code, "KVASIR_OUT_OF_MEMORY");
    assert.equal(error.got, "1 pages asked for, for 4 tokens of 2 sequences");
    assert.equal(error.expected, "at most 0, the free ones of 6");
    return true;
  });
  assert.deepEqual([table.statistics(), table.tables([sequence, other])], before);
  const huge = { sequence: other, tokens: Number.MAX_SAFE_INTEGER };
  assert.throws(() => table.reserve([huge, { sequence, tokens: 1 }]), OutOfMemoryError);
  table.reserve([{ sequence, tokens: 3 }]);
  assert.equal(table.statistics().storedTokens, 24);
});

Deno.test("statistics() counts shared tokens once", () => {
  const { table, sequence } = tableWith(7);
  table.truncate(table.fork(sequence), 5); // shares both pages; the second has 3 tokens
  table.truncate(table.fork(sequence), 4);
  assert.deepEqual(table.statistics(), {
    numPages: 6,
    usedPages: 2,
    freePages: 4,
    sharedPages: 2,
    numSequences: 3,
    sequenceTokens: 16,
    storedTokens: 7,
  });
});

Deno.test("tables() are FlashInfer's, in any order, empty and full sequences included", () => {
  const { table, sequence } = tableWith(8);
  const empty = table.create();
  const short = table.fork(sequence);
  table.truncate(short, 5);
  const { indptr, indices, lastPageLen } = table.tables([empty, short, sequence, empty, short]);
  assert.deepEqual(indptr, Int32Array.of(0, 0, 2, 4, 4, 6));
  assert.deepEqual(indices, Int32Array.of(0, 1, 0, 1, 0, 1));
  assert.deepEqual(lastPageLen, Int32Array.of(0, 1, 4, 0, 1));
  assert.deepEqual(table.tables([]), {
    indptr: Int32Array.of(0),
    indices: new Int32Array(),
    lastPageLen: new Int32Array(),
  });
});

Deno.test("undo() takes back the last change, and nothing else", async () => {
  const { table, sequence } = tableWith(2);
  const reservation = table.reserve([{ sequence, tokens: 1 }]);
  const fails = () =>
    assertFails("undo", () => table.undo(reservation), "PlanError", "undo", /last change/);
  table.fork(sequence);
  await fails();
  const again = table.reserve([{ sequence, tokens: 3 }]);
  await fails();
  table.undo(again);
  assert.deepEqual([sequence.length, table.statistics().sharedPages], [3, 1]);
  assert.deepEqual(table.reserve([{ sequence, tokens: 3 }]), again, "the same pages again");
});

Deno.test("what does not fit is refused, and nothing has changed", async () => {
  const { table, sequence } = tableWith(5);
  const freed = table.fork(sequence);
  table.free(freed);
  const foreign = new PageTable({ numPages: 1, pageSize: 1 }).create();
  const forged = new PageSequence({} as SequenceState);
  const before = [table.statistics(), table.tables([sequence])];
  const reserve = (appends: unknown) => () => table.reserve(appends as Append[]);
  const create = (options: unknown) => () => new PageTable(options as PageTableOptions);
  const cases: [work: () => unknown, kind: ErrorKind, subject: string, pattern: RegExp][] = [
    [create(null), "OptionError", "options", /null/],
    [create({ numPages: 1, pageSizes: 1 }), "OptionError", "options.pageSizes", /not know/],
    [create({ numPages: 0, pageSize: 1 }), "OptionError", "options.numPages", /at least 1/],
    [create({ numPages: 1, pageSize: 1.5 }), "OptionError", "options.pageSize", /1\.5/],
    [
      create({ numPages: 2 ** 20, pageSize: 2 ** 11 }),
      "OptionError",
      "options.numPages",
      /fewer than 2\^31/,
    ],
    [reserve(null), "OptionError", "appends", /null/],
    [reserve([3]), "OptionError", "appends[0]", /3/],
    [reserve([{ sequence, tokens: -1 }]), "OptionError", "appends[0].tokens", /-1/],
    [reserve([{ sequence, tokens: 2 ** 53 }]), "OptionError", "appends[0].tokens", /integer/],
    [
      reserve([{ sequence, tokens: 1 }, { sequence: foreign, tokens: 1 }]),
      "OptionError",
      "appends[1].sequence",
      /another table/,
    ],
    [
      reserve([{ sequence, tokens: 1 }, { sequence, tokens: 2 }]),
      "OptionError",
      "appends[1].sequence",
      /each sequence once/,
    ],
    [
      reserve([{ sequence, tokens: 1 }, { sequence: freed, tokens: 1 }]),
      "DestroyedError",
      "appends[1].sequence",
      /freed/,
    ],
    [() => table.fork(forged), "OptionError", "sequence", /another table/],
    [
      () => table.fork(Object.create(PageSequence.prototype)),
      "OptionError",
      "sequence",
      /create\(\)/,
    ],
    [() => table.fork(freed), "DestroyedError", "sequence", /freed/],
    [() => table.free(freed), "DestroyedError", "sequence", /freed/],
    [() => table.truncate(freed, 0), "DestroyedError", "sequence", /freed/],
    [() => freed.length, "DestroyedError", "sequence", /freed/],
    [() => freed.pages, "DestroyedError", "sequence", /freed/],
    [() => table.truncate(sequence, 6), "OptionError", "length", /from 0 to 5/],
    [() => table.truncate(sequence, -1), "OptionError", "length", /-1/],
    [() => table.truncate(sequence, NaN), "OptionError", "length", /NaN/],
    [() => table.tables([sequence, freed]), "DestroyedError", "sequences[1]", /freed/],
    [() => table.tables(null as never), "OptionError", "sequences", /null/],
  ];
  for (const [work, kind, subject, pattern] of cases) {
    await assertFails(`${kind} of ${subject}`, work, kind, subject, pattern);
    assert.deepEqual([table.statistics(), table.tables([sequence])], before);
  }
});
