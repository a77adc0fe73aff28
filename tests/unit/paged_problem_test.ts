/** Plans of paged calls, without a device. */

import assert from "node:assert/strict";
import type { PagedDecodePlan, PagedPrefillPlan } from "@kvasir/attention";
import { REQUEST_WORDS } from "../../src/attention_problem.ts";
import { cachePages } from "../../src/cache_pages.ts";
import {
  asPair,
  checkPlannedCache,
  overCache,
  pagedDecode,
  pagedPrefill,
  withLastPageLen,
} from "../../src/paged_problem.ts";
import { assertFails } from "../support/failures.ts";

const SIZES = {
  numQoHeads: 6,
  numKvHeads: 3,
  headDim: 8,
  pageSize: 4,
  qDtype: "float32",
  kvDtype: "float16",
} as const;
/** 7, 0 and 4 tokens. */
const DECODE = { ...SIZES, indptr: [0, 2, 2, 3], indices: [1, 4, 0], lastPageLen: [3, 0, 4] };
const PREFILL = {
  ...SIZES,
  qoIndptr: [0, 4, 5, 9],
  pagedKvIndptr: DECODE.indptr,
  pagedKvIndices: DECODE.indices,
  pagedKvLastPageLen: DECODE.lastPageLen,
};

function requestsOf({ problem }: { problem: { requests: Uint32Array } }): number[][] {
  const { requests } = problem;
  return Array.from(
    { length: requests.length / REQUEST_WORDS },
    (_, i) => [...requests.subarray(i * REQUEST_WORDS, (i + 1) * REQUEST_WORDS)],
  );
}

function cacheOf(numPages: number, change: Partial<Record<"pageSize" | "headDim", number>> = {}) {
  const { pageSize, headDim } = { ...SIZES, ...change };
  return cachePages([{ shape: [numPages, 2, pageSize, 3, headDim], dtype: "float16" }], "NHD");
}

Deno.test("pagedDecode() gives each request its row, its tokens and its pages", () => {
  const plan = pagedDecode(DECODE, "NHD");
  assert.deepEqual(requestsOf(plan), [[0, 1, 7, 0], [1, 1, 0, 2], [2, 1, 4, 2]]);
  assert.deepEqual([...plan.problem.pageTable!], DECODE.indices);
  assert.deepEqual(plan.tensors.q.shape, [3, 6, 8]);
  assert.deepEqual(plan.tensors.lse.shape, [3, 6]);
  const none = pagedDecode({ ...DECODE, indptr: [0], indices: [], lastPageLen: [] }, "NHD");
  assert.deepEqual(none.tensors.out.shape, [0, 6, 8]);
  assert.equal(none.lastPage, -1);
});

Deno.test("pagedDecode() makes the same plan whatever the plan before", async () => {
  const sinks = [1, 2, 3, 4, 5, 6];
  const plans: readonly PagedDecodePlan[] = [
    DECODE,
    { ...DECODE, indptr: [0, 1], indices: [3], lastPageLen: [2] },
    ...["numQoHeads", "numKvHeads", "headDim", "pageSize"].map((name) => ({
      ...DECODE,
      [name]: 2 * SIZES[name as "headDim"],
    })),
    { ...DECODE, qDtype: "float16" },
    { ...DECODE, kvDtype: "float32" },
    { ...DECODE, kvDtype: { k: "float32", v: "float16" } },
    { ...DECODE, kvDtype: { k: "float32", v: "bfloat16" } },
    { ...DECODE, kvScales: "token" },
    { ...DECODE, outDtype: "bfloat16" },
    { ...DECODE, smScale: 2 },
    { ...DECODE, posEncodingMode: "ROPE_LLAMA" },
    { ...DECODE, kScale: [1, 2, 3] },
    { ...DECODE, kScale: Float32Array.of(1, 2, 4) },
    { ...DECODE, sinks },
  ];
  for (const last of plans) {
    for (const next of plans) {
      const before = pagedDecode(last, "NHD");
      // The list is the caller's, who may write to it.
      sinks[2]++;
      assert.deepEqual(pagedDecode(next, "NHD", before), pagedDecode(next, "NHD"));
    }
  }
  const before = pagedDecode(DECODE, "NHD");
  const next = pagedDecode({ ...DECODE, indices: [2, 3, 1] }, "NHD", before);
  assert.equal(next.problem.logitScales, before.problem.logitScales, "not checked again");
  const listed = pagedDecode({ ...DECODE, sinks }, "NHD");
  sinks[2]++;
  const other = pagedDecode({ ...DECODE, sinks: [...sinks] }, "NHD", listed);
  assert.deepEqual([...other.problem.sinks!], sinks, "a copy of the list is kept");
  const bad = { ...DECODE, indices: [1, 4, -1] };
  const page = () => pagedDecode(bad, "NHD", before);
  await assertFails("a page", page, "OptionError", "options.indices[2]");
  const unknown = { ...DECODE, scale: 1 };
  const name = () => pagedDecode(unknown as PagedDecodePlan, "NHD", before);
  await assertFails("a name", name, "OptionError", "options.scale");
});

Deno.test("pagedPrefill() gives each request its rows, its tokens and its pages", () => {
  const plan = pagedPrefill({ ...PREFILL, headDimV: 16 }, "HND");
  assert.deepEqual(requestsOf(plan), [[0, 4, 7, 0], [4, 1, 0, 2], [5, 4, 4, 2]]);
  assert.deepEqual(plan.tensors.out.shape, [9, 6, 16]);
  assert.equal(plan.cache.vOffset, null, "head dims that differ take a pair");
});

Deno.test("plans keep copies of their arrays", () => {
  const indices = Uint32Array.from(DECODE.indices);
  const plan = pagedDecode({ ...DECODE, indices }, "NHD");
  indices.fill(3);
  assert.deepEqual([...plan.problem.pageTable!], DECODE.indices);
});

Deno.test("checkPlannedCache() takes a cache that has the largest page, and none smaller", async () => {
  const plan = pagedDecode(DECODE, "NHD");
  assert.deepEqual([plan.lastPage, plan.lastPageOf], [4, 0]);
  checkPlannedCache(plan, cacheOf(5));
  const smaller = () => checkPlannedCache(plan, cacheOf(4));
  const message = /4 pages, of which request 0 has page 4, expected at least 5/;
  await assertFails("smaller", smaller, "PlanError", "kvCache", message);
  const third = pagedDecode({ ...DECODE, indices: [1, 0, 9] }, "NHD");
  const missing = () => checkPlannedCache(third, cacheOf(9));
  await assertFails("request", missing, "PlanError", "kvCache", /request 2 has page 9/);
  const sizes = () => checkPlannedCache(plan, cacheOf(5, { pageSize: 8 }));
  await assertFails("page size", sizes, "PlanError", "kvCache", /pageSize 8, .* kvLayout too/);
  const none = pagedDecode({ ...DECODE, indptr: [0, 0, 0, 0], indices: [] }, "NHD");
  checkPlannedCache(none, cacheOf(0));
});

Deno.test("overCache() takes k's and v's strides from the cache, one tensor or a pair", () => {
  for (const layout of ["NHD", "HND"] as const) {
    const plan = pagedDecode(DECODE, layout);
    const inner = layout === "NHD" ? { token: 24, head: 8 } : { token: 8, head: 32 };
    const joined = { page: 192, ...inner };
    assert.deepEqual(plan.problem.kStrides, joined);
    assert.deepEqual(plan.problem.vStrides, { ...joined, offset: 96 });
    const pair = overCache(plan, asPair(layout, plan.cache));
    assert.deepEqual(pair.kStrides, { page: 96, ...inner });
    assert.deepEqual(pair.vStrides, { page: 96, ...inner, offset: 0 });
  }
});

Deno.test("withLastPageLen() changes lengths alone, and not the plan before", async () => {
  const plan = pagedDecode(DECODE, "NHD");
  const next = withLastPageLen(plan, [4, 4, 1]);
  assert.deepEqual(requestsOf(next), [[0, 1, 8, 0], [1, 1, 0, 2], [2, 1, 1, 2]]);
  assert.deepEqual(next.table.lengths, [8, 0, 1]);
  assert.deepEqual(requestsOf(plan), [[0, 1, 7, 0], [1, 1, 0, 2], [2, 1, 4, 2]]);
  for (const [lens, request] of [[[0, 0, 4], 0], [[5, 0, 4], 0], [[1, 0, 5], 2]] as const) {
    const work = () => withLastPageLen(plan, lens);
    const message = new RegExp(`for request ${request}, expected an integer from 1 to 4`);
    await assertFails(`${lens}`, work, "OptionError", `lastPageLen[${request}]`, message);
  }
});

Deno.test("requests have at most 2^31 - 1 tokens, whatever pages they repeat", async () => {
  const pageSize = 2 ** 16;
  const long = (pages: number, last: number) => ({
    ...SIZES,
    pageSize,
    indptr: [0, 0, pages],
    indices: new Uint32Array(pages),
    lastPageLen: [0, last],
  });
  const most = pagedDecode(long(2 ** 15, pageSize - 1), "NHD");
  assert.equal(requestsOf(most)[1][2], 2 ** 31 - 1);
  const more = () => withLastPageLen(most, [0, pageSize]);
  const message = /got 2147483648 tokens for request 1, expected at most 2147483647/;
  await assertFails("an update", more, "OptionError", "lastPageLen[1]", message);
  // 2^31; 2^32, which 32 bits would take for no token; and some more.
  for (const pages of [2 ** 15, 2 ** 16, 2 ** 16 + 1]) {
    const plan = long(pages, pageSize);
    const decode = () => pagedDecode(plan, "NHD");
    await assertFails(`${pages}`, decode, "OptionError", "options.indptr[2]", /for request 1/);
    const { indptr, indices, lastPageLen, ...sizes } = plan;
    const prefill = () =>
      pagedPrefill({
        ...sizes,
        qoIndptr: [0, 1, 2],
        pagedKvIndptr: indptr,
        pagedKvIndices: indices,
        pagedKvLastPageLen: lastPageLen,
      }, "NHD");
    const subject = "options.pagedKvIndptr[2]";
    await assertFails(`${pages}`, prefill, "OptionError", subject, /for request 1/);
  }
});

Deno.test("arrays too long for any copy are refused at once", async () => {
  const endless = new Array(2 ** 32 - 1);
  const begin = performance.now();
  for (const name of ["indptr", "indices", "lastPageLen", "sinks", "kScale"]) {
    const plan = { ...DECODE, [name]: endless } as PagedDecodePlan;
    const subject = name === "indptr" ? "options.indptr[0]" : `options.${name}`;
    await assertFails(name, () => pagedDecode(plan, "NHD"), "OptionError", subject);
  }
  const prefill = ["qoIndptr", "pagedKvIndptr", "pagedKvIndices", "pagedKvLastPageLen"];
  for (const name of [...prefill, "customMask"]) {
    const plan = { ...PREFILL, [name]: endless } as PagedPrefillPlan;
    const subject = /ndptr$/.test(name) ? `options.${name}[0]` : `options.${name}`;
    await assertFails(name, () => pagedPrefill(plan, "NHD"), "OptionError", subject);
  }
  assert.ok(performance.now() - begin < 1000, "no list is copied before it is counted");
});

Deno.test("lists are read by index, whatever their iterators say", () => {
  const sly = (good: readonly number[]) =>
    Object.assign([...good], { [Symbol.iterator]: () => [9, 9, 9, 9, 9].values() });
  const plan = pagedDecode({
    ...DECODE,
    indptr: sly(DECODE.indptr),
    indices: sly(DECODE.indices),
    lastPageLen: sly(DECODE.lastPageLen),
  }, "NHD");
  assert.deepEqual(requestsOf(plan), requestsOf(pagedDecode(DECODE, "NHD")));
});
