/** Masks as the backends take them: every bit in its place, from every form and alignment. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { checkVisibility, type MaskedRequest } from "../../src/attention_mask.ts";
import { packBits } from "../support/prefill.ts";
import { uniform } from "../support/values.ts";

/** Whether query i of a request sees key j, by the definition of an AttentionMask. */
function sees(
  { words, firstWords }: { words: Uint32Array; firstWords: Uint32Array },
  request: number,
  kvLen: number,
  i: number,
  j: number,
): boolean {
  const word = firstWords[request] + i * Math.ceil(kvLen / 32) + Math.floor(j / 32);
  return Math.floor(words[word] / 2 ** (j % 32)) % 2 === 1;
}

function randomMasks(requests: readonly MaskedRequest[], seed: number): boolean[][] {
  const next = uniform(seed);
  return requests.map(({ rows, columns }) =>
    Array.from({ length: rows * columns }, () => next() < 0.5)
  );
}

const REQUESTS = fc.array(
  fc.record({
    rows: fc.integer({ min: 0, max: 9 }),
    columns: fc.integer({ min: 0, max: 100 }),
    lessRows: fc.integer({ min: 0, max: 9 }),
    lessColumns: fc.integer({ min: 0, max: 100 }),
  }),
  { maxLength: 4 },
).map((all) =>
  all.map(({ rows, columns, lessRows, lessColumns }) => ({
    rows,
    columns,
    qoLen: Math.max(0, rows - lessRows),
    kvLen: Math.max(0, columns - lessColumns),
  }))
);

Deno.test("masks: every bit is in its place, and none behind a row's end", () => {
  fc.assert(
    fc.property(REQUESTS, fc.integer(), (requests, seed) => {
      const masks = randomMasks(requests, seed);
      const { causal, mask } = checkVisibility(
        { customMask: masks.flat(), causal: true },
        requests,
      );
      assert.equal(causal, false);
      assert.ok(mask);
      let words = 0;
      requests.forEach(({ qoLen, kvLen, columns }, request) => {
        const rowWords = Math.ceil(kvLen / 32);
        words += qoLen * rowWords;
        for (let i = 0; i < qoLen; i++) {
          for (let j = 0; j < 32 * rowWords; j++) {
            const expected = j < kvLen && masks[request][i * columns + j];
            assert.equal(sees(mask, request, kvLen, i, j), expected, `${request}, ${i}, ${j}`);
          }
        }
      });
      assert.equal(mask.words.length, words);
      assert.equal(mask.firstWords.length, requests.length);
    }),
    { numRuns: 300 },
  );
});

Deno.test("masks: booleans, numbers and bits are one mask", () => {
  fc.assert(
    fc.property(REQUESTS, fc.integer(), (requests, seed) => {
      const masks = randomMasks(requests, seed);
      const booleans = checkVisibility({ customMask: masks.flat() }, requests);
      const numbers = { customMask: Float32Array.from(masks.flat(), Number) };
      assert.deepEqual(checkVisibility(numbers, requests), booleans);
      const packed = Uint8Array.from(masks.flatMap((mask) => [...packBits(mask)]));
      assert.deepEqual(checkVisibility({ packedCustomMask: packed }, requests), booleans);
      // The bits behind a request's last are nobody's.
      let end = 0;
      for (const mask of masks) {
        end += Math.ceil(mask.length / 8);
        if (mask.length % 8 > 0) packed[end - 1] |= 0xff << (mask.length % 8);
      }
      assert.deepEqual(checkVisibility({ packedCustomMask: packed }, requests), booleans);
    }),
    { numRuns: 300 },
  );
});

Deno.test("masks: little bit order, by hand", () => {
  const request = { rows: 2, columns: 5, qoLen: 2, kvLen: 5 };
  // Bits 0 to 4 are the first query's keys, 5 to 9 the second's.
  const { mask } = checkVisibility({ packedCustomMask: Uint8Array.of(0b010_00001, 0b11) }, [
    request,
  ]);
  assert.deepEqual(mask, {
    words: Uint32Array.of(0b00001, 0b11010),
    firstWords: Uint32Array.of(0),
  });
});

Deno.test("masks: without one, causal is as it is given", () => {
  const requests = [{ rows: 2, columns: 2, qoLen: 2, kvLen: 2 }];
  assert.deepEqual(checkVisibility({}, requests), { causal: false, mask: null });
  assert.deepEqual(checkVisibility({ causal: true }, requests), { causal: true, mask: null });
});
