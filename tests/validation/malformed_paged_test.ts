/**
 * Random malformed plans of paged attention: whatever is wrong with one, it gets a typed error that names
 * an argument before anything runs, and the plan before stays in force.
 */

import assert from "node:assert/strict";
import {
  BatchDecodeWithPagedKvCache,
  BatchPrefillWithPagedKvCache,
  type PagedDecodePlan,
  type PagedPrefillPlan,
} from "@kvasir/attention";
import fc from "fast-check";
import { assertSameBits } from "../support/bits.ts";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertTyped, badOptions, countWork } from "../support/malformed.ts";
import { normals } from "../support/values.ts";

const SIZES = {
  numQoHeads: 6,
  numKvHeads: 3,
  headDim: 8,
  pageSize: 4,
  qDtype: "float32",
  kvDtype: "float16",
} as const;
const DECODE = { ...SIZES, indptr: [0, 2, 3], indices: [4, 1, 0], lastPageLen: [3, 4] };
const PREFILL = {
  ...SIZES,
  qoIndptr: [0, 4, 9],
  pagedKvIndptr: [0, 2, 3],
  pagedKvIndices: [4, 1, 0],
  pagedKvLastPageLen: [3, 4],
};

/** What is no index at all. */
const noIndex = fc.constantFrom<unknown>(
  -1,
  0.5,
  NaN,
  Infinity,
  2 ** 31,
  2 ** 53,
  "1",
  null,
  undefined,
  1n,
  true,
  [],
  {},
);
const noArray = fc.constantFrom<unknown>(
  undefined,
  null,
  3,
  "012",
  {},
  { length: 3 },
  new DataView(new ArrayBuffer(8)),
  () => [0, 1],
  new BigInt64Array(3),
  new Map([[0, 0]]),
  new Array(2 ** 32 - 1),
);

/** An index array of which an entry, or the number of entries, is wrong. */
const badArray = (good: readonly number[]): fc.Arbitrary<unknown> =>
  fc.oneof(
    noArray,
    fc.tuple(fc.nat(), noIndex).map(([at, value]) => good.with(at % good.length, value as number)),
    fc.array(fc.nat({ max: 4 }), { maxLength: 7 }).filter(({ length }) => length !== good.length),
  );

/** One with entries that are integers, but not those of a page table of these sizes. */
const badIndptr = (good: readonly number[]) =>
  fc.oneof(
    badArray(good),
    fc.integer({ min: 1, max: 9 }).map((first) => good.with(0, first)),
    fc.integer({ min: 1, max: 9 }).map((more) => good.with(-1, good[good.length - 1] + more)),
    fc.constant([0, 3, 2]),
  );
const badLengths = fc.oneof(
  badArray([3, 4]),
  fc.constantFrom([0, 4], [3, 0], [5, 4], [3, 5], [3, 100]),
);
const badSizes = fc.tuple(
  fc.constantFrom("numQoHeads", "numKvHeads", "headDim", "pageSize", "qDtype", "kvDtype"),
  fc.constantFrom<unknown>(0, -1, 1.5, NaN, Infinity, 65_537, "6", null, undefined, {}, [6]),
).map(([name, value]) => ({ [name]: value }));
/** Scales and sinks of a list, which badOptions has for the heads of these sizes. */
const badShared = badOptions.filter((options) =>
  !/^(kvLayout|returnLse|seqLens|indptr|indices|lastP|num|head|page|qD|kvD|qo|causal|custom|packed|logitsT|logitsM|variant)/
    .test(Object.keys(options)[0])
);

const badDecode: fc.Arbitrary<Record<string, unknown>> = fc.oneof(
  badSizes,
  badShared,
  badIndptr(DECODE.indptr).map((indptr) => ({ indptr })),
  badArray(DECODE.indices).map((indices) => ({ indices })),
  badLengths.map((lastPageLen) => ({ lastPageLen })),
);
const badPrefill: fc.Arbitrary<Record<string, unknown>> = fc.oneof(
  badSizes,
  badShared,
  badArray(PREFILL.qoIndptr).map((qoIndptr) => ({ qoIndptr })),
  badIndptr(PREFILL.pagedKvIndptr).map((pagedKvIndptr) => ({ pagedKvIndptr })),
  badArray(PREFILL.pagedKvIndices).map((pagedKvIndices) => ({ pagedKvIndices })),
  badLengths.map((pagedKvLastPageLen) => ({ pagedKvLastPageLen })),
);

/** What is no plan at all. */
const noPlan = fc.constantFrom<unknown>(undefined, null, 0, 1n, "plan", true, [], () => DECODE);

/** Of each property and backend: 24,000 in all. */
const RUNS = 4000;
const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

onEachBackend(
  "random malformed paged plans get typed errors, and the old one runs",
  async (device) => {
    using decode = new BatchDecodeWithPagedKvCache(device);
    using prefill = new BatchPrefillWithPagedKvCache(device);
    using q = device.tensor(normals(2 * 48, 1), [2, 6, 8], "float32");
    using rows = device.tensor(normals(9 * 48, 1), [9, 6, 8], "float32");
    using cache = device.tensor(normals(5 * 2 * 4 * 24, 2), [5, 2, 4, 3, 8], "float16");
    decode.plan(DECODE);
    prefill.plan(PREFILL);
    const [first, second] = [await decode.run(q, cache), await prefill.run(rows, cache)];
    using decoded = first;
    using prefilled = second;
    const good = await countWork(device, async () => {
      decode.plan(DECODE);
      prefill.plan(PREFILL);
      (await decode.run(q, cache)).destroy();
    });
    assert.ok(good > 0, "what is asked for is counted");
    // deno-lint-ignore require-await
    const work = await countWork(device, async () => {
      fc.assert(
        fc.property(badDecode, (change) => {
          const plan = { ...DECODE, ...change } as unknown as PagedDecodePlan;
          assertTyped(`decode ${Object.keys(change)}`, () => decode.plan(plan));
        }),
        { numRuns: RUNS },
      );
      fc.assert(
        fc.property(badPrefill, (change) => {
          const plan = { ...PREFILL, ...change } as unknown as PagedPrefillPlan;
          assertTyped(`prefill ${Object.keys(change)}`, () => prefill.plan(plan));
        }),
        { numRuns: RUNS },
      );
      fc.assert(
        fc.property(badLengths, (lengths) => {
          assertTyped("update", () => decode.updateLastPageLen(lengths as number[]));
        }),
        { numRuns: RUNS },
      );
      fc.assert(
        fc.property(noPlan, (plan) => {
          assertTyped(`decode ${typeof plan}`, () => decode.plan(plan as PagedDecodePlan));
          assertTyped(`prefill ${typeof plan}`, () => prefill.plan(plan as PagedPrefillPlan));
        }),
      );
    });
    assert.equal(work, 0);
    const [again, once] = [await decode.run(q, cache), await prefill.run(rows, cache)];
    using decodedAgain = again;
    using prefilledAgain = once;
    assertSameBits(await decodedAgain.read(), await decoded.read(), "decode");
    assertSameBits(await prefilledAgain.read(), await prefilled.read(), "prefill");
  },
  BOTH,
);
