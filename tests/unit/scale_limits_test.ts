/** What a device can bind of scales of tokens, and what kernels are told of them, without a GPU. */

import assert from "node:assert/strict";
import { pagedDecode } from "../../src/paged_problem.ts";
import { planDecode } from "../../src/webgpu/decode_plan.ts";
import { tableWords, withPageTable } from "../../src/webgpu/decode_tables.ts";
import { planPrefill } from "../../src/webgpu/prefill_plan.ts";
import { pagesOf } from "../../src/webgpu/scale_limits.ts";
import { capabilities } from "../support/capabilities.ts";
import { assertFails } from "../support/failures.ts";

const PLAN = {
  indptr: [0, 2, 5],
  indices: [7, 3, 0, 1, 2],
  lastPageLen: [4, 1],
  numQoHeads: 4,
  numKvHeads: 2,
  headDim: 8,
  pageSize: 16,
  qDtype: "float32",
  kvDtype: "float8_e4m3fn",
  kvScales: "token",
} as const;

Deno.test("pagesOf() is one more than the largest page in use", () => {
  const { problem } = pagedDecode(PLAN, "NHD");
  assert.equal(pagesOf(problem), 8);
  const requests = Uint32Array.of(0, 1, 5, 0, 1, 1, 5, 1);
  assert.equal(pagesOf({ requests, pageTable: null }), 2);
  assert.equal(pagesOf({ requests: new Uint32Array(0), pageTable: null }), 1);
});

Deno.test("plans refuse scales of tokens that no binding holds", async () => {
  const { problem } = pagedDecode(PLAN, "NHD");
  for (const plan of [planDecode, planPrefill]) {
    plan(problem, capabilities(null));
    const scales = { ...problem, kvScales: { page: 5 * 10 ** 5, head: 16 } };
    await assertFails(
      plan.name,
      () => plan(scales, capabilities(null, { maxStorageBufferBindingSize: 31_999_999 })),
      "LimitError",
      "kvScales",
      /32000000 bytes/,
    );
  }
});

Deno.test("with scales of tokens the page table lies behind the other tables", () => {
  const { problem } = pagedDecode(PLAN, "NHD");
  const words = tableWords(problem, []);
  const all = withPageTable(words, problem);
  assert.deepEqual(all.subarray(0, words.length), words);
  assert.deepEqual([...all.subarray(words.length)], [7, 3, 0, 1, 2, 0, 0, 0]);
  assert.equal(withPageTable(words, { ...problem, kvScales: null }), words);
});

Deno.test("kernels bind eight storage buffers, with scales of tokens too", () => {
  const { problem } = pagedDecode(PLAN, "NHD");
  for (const plan of [planDecode, planPrefill]) {
    const { kernel } = plan(problem, capabilities(null));
    assert.equal(kernel.bindings.filter((kind) => kind !== "uniform").length, 8);
    assert.match(kernel.name, /token_scales/);
  }
});
