/** Caches larger than a binding, without a GPU: parts that fit, and hold every row once. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { type Region, regionsOf, windowOf } from "../../src/webgpu/decode_windows.ts";

Deno.test("regionsOf() gives windows that fit a binding and hold every row once", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 6 }),
      fc.constantFrom(8, 64, 128),
      fc.constantFrom(1, 2, 4),
      fc.boolean(),
      fc.integer({ min: 0, max: 60_000 }),
      (pages, tokens, heads, headDim, elementBytes, isNhd, room) => {
        const page = tokens * heads * headDim;
        const options = {
          strides: isNhd
            ? { page, token: heads * headDim, head: headDim }
            : { page, token: headDim, head: tokens * headDim },
          headDim,
          elementBytes,
          // At least a row and what its alignment may cost.
          bindingBytes: headDim * elementBytes + 2 * 256 + 16 + room,
          alignment: 256,
        };
        const whole: Region = { pages: [0, pages], tokens: [0, tokens], heads: [0, heads] };
        const seen = new Set<string>();
        for (const region of regionsOf(whole, options)) {
          const { offset, size } = windowOf(region, options);
          assert.equal(offset % 256, 0);
          assert.ok(size <= options.bindingBytes, `${size} of ${options.bindingBytes}`);
          for (let p = region.pages[0]; p < region.pages[1]; p++) {
            for (let t = region.tokens[0]; t < region.tokens[1]; t++) {
              for (let h = region.heads[0]; h < region.heads[1]; h++) {
                const key = `${p} ${t} ${h}`;
                assert.ok(!seen.has(key), `${key} twice`);
                seen.add(key);
                const { strides } = options;
                const at = (p * strides.page + t * strides.token + h * strides.head) * elementBytes;
                assert.ok(at >= offset && at + headDim * elementBytes <= offset + size, key);
              }
            }
          }
        }
        assert.equal(seen.size, pages * tokens * heads);
      },
    ),
    { numRuns: 3000 },
  );
});

Deno.test("regionsOf() leaves whole what fits", () => {
  const options = {
    strides: { page: 1024, token: 64, head: 8 },
    headDim: 8,
    elementBytes: 2,
    bindingBytes: 2 ** 27,
    alignment: 256,
  };
  const whole: Region = { pages: [0, 3], tokens: [0, 16], heads: [0, 8] };
  assert.deepEqual(regionsOf(whole, options), [whole]);
});

Deno.test("windows beyond 2^32 elements are exact", () => {
  const options = {
    strides: { page: 2 ** 33, token: 1024, head: 128 },
    headDim: 128,
    elementBytes: 1,
    bindingBytes: 2 ** 31 - 4,
    alignment: 256,
  };
  const regions = regionsOf({ pages: [0, 2], tokens: [0, 2 ** 23], heads: [0, 8] }, options);
  const windows = regions.map((region) => windowOf(region, options));
  assert.ok(windows.every(({ size }) => size <= options.bindingBytes));
  assert.equal(Math.max(...windows.map(({ offset, size }) => offset + size)), 2 ** 34);
});
