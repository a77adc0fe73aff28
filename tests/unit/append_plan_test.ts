/** Planning of append and quantize, without a GPU. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import fc from "fast-check";
import { type AppendProblem, SLOT_WORDS } from "../../src/append_problem.ts";
import { planAppend } from "../../src/webgpu/append_plan.ts";
import { paramWords, slotWords } from "../../src/webgpu/append_tables.ts";
import { pieceQuads } from "../../src/webgpu/convert_pieces.ts";
import { planQuantize } from "../../src/webgpu/quantize_plan.ts";
import { bytesOf } from "../support/append.ts";
import { capabilities } from "../support/capabilities.ts";
import { assertFails } from "../support/failures.ts";
import { DTYPES } from "../support/malformed.ts";

const BY_ADDITION = { byAddition: true, byPacking: false };

/** A token on every page, from the last on; NHD. */
function problemOf(
  { numPages = 9, pageSize = 3, numKvHeads = 2, headDim = 8, kvDtype = "float16", joined = true }: {
    numPages?: number;
    pageSize?: number;
    numKvHeads?: number;
    headDim?: number;
    kvDtype?: DType;
    joined?: boolean;
  },
): AppendProblem {
  const page = pageSize * numKvHeads * headDim;
  const strides = { page: joined ? 2 * page : page, token: numKvHeads * headDim, head: headDim };
  const slots = Array.from({ length: numPages }, (_, i) => [numPages - 1 - i, i % pageSize, i]);
  return {
    numTokens: numPages,
    numKvHeads,
    headDim,
    headDimV: headDim,
    dtype: "float16",
    kDtype: kvDtype,
    vDtype: kvDtype,
    numPages,
    slots: Uint32Array.from(slots.flat()),
    kStrides: strides,
    vStrides: strides,
    vOffset: joined ? page : null,
    kFactors: null,
    vFactors: null,
    kvScales: null,
    rope: null,
  };
}

Deno.test("planAppend() shows every token to one dispatch, whose windows hold its rows", () => {
  const sizes = fc.record({
    numPages: fc.integer({ min: 1, max: 40 }),
    pageSize: fc.integer({ min: 1, max: 5 }),
    numKvHeads: fc.integer({ min: 1, max: 3 }),
    headDim: fc.constantFrom(8, 24, 64),
    kvDtype: fc.constantFrom(...DTYPES),
    joined: fc.boolean(),
  });
  fc.assert(
    fc.property(sizes, fc.integer({ min: 0, max: 9000 }), (size, room) => {
      const problem = problemOf(size);
      const { kStrides, vOffset, numKvHeads, headDim } = problem;
      const bytes = bytesOf(size.kvDtype);
      const rowBytes = size.numPages * numKvHeads * headDim * 2;
      const limit = Math.max(rowBytes, kStrides.page * bytes + 256) + 16 + room;
      const plan = planAppend(
        problem,
        capabilities(null, { maxStorageBufferBindingSize: limit }),
        BY_ADDITION,
      );
      const seen = new Set<number>();
      const [pass] = plan.passes;
      for (const dispatch of pass.dispatches) {
        const slots = slotWords(problem, dispatch);
        const [numWork, keyWork, , , ...words] = paramWords(problem, pass, dispatch, 0);
        assert.equal(numWork, 2 * keyWork);
        const [kPage, kToken, , kBase, , , , vBase] = words.map((x) => x * pass.pieceElements);
        const windows = dispatch.windows ?? { k: { offset: 0, size: Infinity } };
        assert.equal(windows.k.offset % 256, 0);
        if (dispatch.windows) assert.ok(windows.k.size <= limit, `${windows.k.size} of ${limit}`);
        for (let at = 0; at < slots.length; at += 4) {
          const [token, page, place] = slots.subarray(at, at + 4);
          assert.ok(!seen.has(token), `token ${token} twice`);
          seen.add(token);
          const [wantedPage, wantedPlace] = problem.slots.subarray(token * SLOT_WORDS);
          const begin = windows.k.offset / bytes;
          const place0 = wantedPage * kStrides.page + wantedPlace * kStrides.token;
          assert.equal(begin + kBase + page * kPage + place * kToken, place0);
          const isV = vOffset === null ? 0 : vOffset;
          assert.equal(begin + vBase + page * kPage + place * kToken, place0 + isV);
          const end = (place0 + isV + numKvHeads * headDim) * bytes;
          assert.ok(end <= windows.k.offset + windows.k.size, "a row behind its window");
        }
      }
      assert.equal(seen.size, problem.numTokens);
    }),
  );
});

Deno.test("planAppend() takes one dispatch where the cache fits a binding", () => {
  const problem = problemOf({});
  const dispatches = (problem: AppendProblem) =>
    planAppend(problem, capabilities(null), BY_ADDITION).passes.map(({ dispatches }) => dispatches);
  assert.deepEqual(dispatches(problem).flat().map(({ windows }) => windows), [null]);
  assert.deepEqual(dispatches({ ...problem, numTokens: 0 }), [[]]);
});

Deno.test("planAppend() refuses what kernels cannot", async () => {
  for (const headDim of [1, 4, 12, 100]) {
    const work = () => planAppend(problemOf({ headDim }), capabilities(null), BY_ADDITION);
    await assertFails(`${headDim}`, work, "LimitError", "kvCache", /multiple of 8 on WebGPU/);
  }
  const limits = { maxStorageBufferBindingSize: 4096 };
  const large = problemOf({ pageSize: 300 });
  const pages = () => planAppend(large, capabilities(null, limits), BY_ADDITION);
  await assertFails("pages", pages, "LimitError", "kvCache", /Use smaller pages/);
  const many = () =>
    planAppend({ ...problemOf({}), numTokens: 500 }, capabilities(null, limits), BY_ADDITION);
  await assertFails("rows", many, "LimitError", "appendKey", /fewer tokens/);
});

Deno.test("pieceQuads() moves 16 bytes on the wider side, or what divides a row", () => {
  const of = (from: DType, to: DType, ...rows: number[]) =>
    pieceQuads({ from, to, isScaled: false }, rows);
  assert.equal(of("float8_e5m2", "float8_e4m3fn"), 4);
  assert.equal(of("float16", "float8_e4m3fn"), 2);
  assert.equal(of("float32", "float8_e4m3fn"), 1);
  assert.equal(of("float16", "bfloat16", 128), 2);
  assert.equal(of("float16", "float16", 128, 20), 1);
  assert.equal(of("float8_e5m2", "float8_e5m2", 24), 2);
});

Deno.test("planQuantize() covers every element once, in parts that fit bindings", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...DTYPES),
      fc.constantFrom(...DTYPES),
      fc.nat(20_000),
      fc.integer({ min: 1024, max: 9000 }),
      (from, to, count, limit) => {
        const limits = { maxStorageBufferBindingSize: limit };
        const { dispatches } = planQuantize(
          { count, from, to, factor: 1 },
          capabilities(null, limits),
          BY_ADDITION,
        );
        let end = 0;
        for (const { source, result, numPieces, grid } of dispatches) {
          assert.deepEqual([source.offset, result.offset], [
            end * bytesOf(from),
            end * bytesOf(to),
          ]);
          const elements = source.size / bytesOf(from);
          assert.equal(result.size, elements * bytesOf(to));
          assert.ok(Math.max(source.size, result.size) <= limit);
          assert.ok(source.offset % 256 === 0 && result.offset % 256 === 0);
          const most = 16 / Math.max(bytesOf(from), bytesOf(to));
          assert.equal(numPieces, Math.ceil(elements / most));
          assert.ok(grid[0] * grid[1] * 256 >= numPieces);
          end += elements;
        }
        assert.equal(end, count);
      },
    ),
  );
});

Deno.test("planAppend() takes keys and values one after the other where their dtypes differ", () => {
  const problem = { ...problemOf({ joined: false }), vDtype: "float8_e5m2" as const };
  const { passes } = planAppend(problem, capabilities(null), BY_ADDITION);
  const work = passes.map(({ dispatches: [{ numWork, keyWork }] }) => [numWork > 0, keyWork > 0]);
  assert.deepEqual(work, [[true, true], [true, false]]);
  const [{ numWork, keyWork }] = passes[0].dispatches;
  assert.equal(numWork, keyWork);
});
