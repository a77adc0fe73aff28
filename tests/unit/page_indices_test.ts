/** Page tables and index arrays, without a device. */

import assert from "node:assert/strict";
import { getBatchIndicesPositions, getSeqLens } from "@kvasir/attention";
import fc from "fast-check";
import { checkPageTable } from "../../src/page_indices.ts";
import { assertFails } from "../support/failures.ts";

const NAMES = { indptr: "indptr", indices: "indices", lastPageLen: "lastPageLen" };
const SIZES = { numPages: 8, pageSize: 16 };
const GOOD = { indptr: [0, 2, 2, 3], indices: [7, 0, 7], lastPageLen: [5, 0, 16] };

Deno.test("checkPageTable() gives the length of each request", () => {
  const { lengths, indices } = checkPageTable(NAMES, GOOD, SIZES);
  assert.deepEqual(lengths, [21, 0, 16]);
  assert.deepEqual([...indices], [7, 0, 7]);
  const typed = {
    indptr: Int32Array.from(GOOD.indptr),
    indices: Int32Array.from(GOOD.indices),
    lastPageLen: Int32Array.from(GOOD.lastPageLen),
  };
  assert.deepEqual(checkPageTable(NAMES, typed, SIZES).lengths, lengths);
  const none = { indptr: [0], indices: [], lastPageLen: [] };
  assert.deepEqual(checkPageTable(NAMES, none, { numPages: 0, pageSize: 1 }).lengths, []);
});

Deno.test("checkPageTable() says which request is wrong", async () => {
  const cases: [Partial<Record<keyof typeof GOOD, unknown>>, string, RegExp][] = [
    [{ indptr: [0, 2, 1, 3] }, "indptr[2]", /got 1 for the end of request 1/],
    [{ indptr: [1, 2, 2, 3] }, "indptr[0]", /expected 0/],
    [{ indptr: [] }, "indptr", /no entries/],
    [{ indices: [7, 0] }, "indices", /got 2 pages, expected 3, where indptr ends/],
    [{ indices: [7, 0, 8] }, "indices[2]", /page 8 for request 2, expected an integer from 0 to 7/],
    [{ indices: [7, -1, 1] }, "indices[1]", /page -1 for request 0/],
    [{ indices: [7, 0.5, 1] }, "indices[1]", /page 0.5/],
    [{ indices: "710" }, "indices", /an array of numbers/],
    [{ lastPageLen: [5, 0] }, "lastPageLen", /got 2 numbers, expected 3, one a request/],
    [{ lastPageLen: [0, 0, 16] }, "lastPageLen[0]", /got 0 for request 0, .* from 1 to 16/],
    [{ lastPageLen: [5, -1, 16] }, "lastPageLen[1]", /got -1 for request 1, .* from 0 to 16/],
    [{ lastPageLen: [5, 0, 17] }, "lastPageLen[2]", /got 17 for request 2/],
  ];
  for (const [change, subject, message] of cases) {
    const work = () => checkPageTable(NAMES, { ...GOOD, ...change } as typeof GOOD, SIZES);
    await assertFails(JSON.stringify(change), work, "OptionError", subject, message);
  }
  const empty = () => checkPageTable(NAMES, GOOD, { numPages: 0, pageSize: 16 });
  await assertFails("no pages", empty, "OptionError", "indices[0]", /the cache has none/);
});

Deno.test("getSeqLens() counts all pages but the last as full", async () => {
  assert.deepEqual([...getSeqLens([0, 3, 3, 4], [2, 0, 16], 16)], [34, 0, 16]);
  assert.deepEqual([...getSeqLens([0, 1], [1], 1)], [1]);
  assert.deepEqual([...getSeqLens([0], [], 16)], []);
  for (const pageSize of [0, -1, 1.5, NaN, "16"]) {
    const work = () => getSeqLens([0, 1], [1], pageSize as number);
    await assertFails(`${pageSize}`, work, "OptionError", "pageSize");
  }
  const long = () => getSeqLens([0, 1, 2 ** 20], [1, 1], 2 ** 20);
  await assertFails("long", long, "OptionError", "kvIndptr[2]", /for request 1, expected at most/);
});

Deno.test("getBatchIndicesPositions() puts a request's tokens at its end", async () => {
  const { batchIndices, positions } = getBatchIndicesPositions([0, 2, 2, 5], [5, 9, 3], 5);
  assert.deepEqual(batchIndices, Int32Array.of(0, 0, 2, 2, 2));
  assert.deepEqual(positions, Int32Array.of(3, 4, 0, 1, 2));
  const cases: [() => unknown, string, RegExp][] = [
    [() => getBatchIndicesPositions([0, 2], [1]), "seqLens[0]", /got 1 for request 0, .*least 2/],
    [() => getBatchIndicesPositions([0, 2], [2, 2]), "seqLens", /got 2 lengths, expected 1/],
    [() => getBatchIndicesPositions([0, 2], [2.5]), "seqLens[0]", /got 2.5/],
    [() => getBatchIndicesPositions([0, 2, 1], [2, 2]), "appendIndptr[2]", /end of request 1/],
    [() => getBatchIndicesPositions([0, 2], [2], 3), "nnz", /got 3, expected 2/],
  ];
  for (const [work, subject, message] of cases) {
    await assertFails(subject, work, "OptionError", subject, message);
  }
});

Deno.test("getBatchIndicesPositions() and getSeqLens() agree with counting", () => {
  const request = fc.record({ length: fc.nat(70), appended: fc.nat(70) })
    .map(({ length, appended }) => ({ length, appended: Math.min(length, appended) }));
  fc.assert(
    fc.property(
      fc.array(request, { maxLength: 9 }),
      fc.integer({ min: 1, max: 20 }),
      (all, size) => {
        const running = (counts: number[]) => counts.reduce((x, n) => [...x, x.at(-1)! + n], [0]);
        const pages = all.map(({ length }) => Math.ceil(length / size));
        const last = all.map(({ length }) => length === 0 ? 0 : (length - 1) % size + 1);
        const lengths = getSeqLens(running(pages), last, size);
        assert.deepEqual([...lengths], all.map(({ length }) => length));
        const got = getBatchIndicesPositions(running(all.map(({ appended }) => appended)), lengths);
        const expected = all.flatMap(({ length, appended }, i) =>
          Array.from({ length: appended }, (_, j) => [i, length - appended + j])
        );
        assert.deepEqual([...got.batchIndices], expected.map(([i]) => i));
        assert.deepEqual([...got.positions], expected.map(([, position]) => position));
      },
    ),
  );
});
