/** The decode calls against what FlashInfer itself answered on an H200. */

import assert from "node:assert/strict";
import { getBatchIndicesPositions, getSeqLens } from "@kvasir/attention";
import { runDecode, runSingleDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { runPagedDecode } from "../support/paged.ts";
import { indptrOf } from "../support/ragged.ts";
import { GOLDEN_IDS, goldenIndices, goldenInputs } from "../support/golden.ts";
import { checkGolden, prepareWith } from "../support/golden_check.ts";

const prepare = prepareWith(goldenInputs);

/** Run here: decodes as they are, prefills row by row. */
const COVERED = [
  "single_prefill/group3",
  "single_prefill/group5-full",
  "single_prefill/group1-one-key",
  "single_prefill/group16-decode-like",
  "single_prefill/scale",
  "single_prefill/d64",
  "single_prefill/rope",
  "single_prefill/alibi",
  "single_prefill/bf16",
  "paged_decode/group1",
  "paged_decode/group2",
  "paged_decode/group3",
  "paged_decode/group4",
  "paged_decode/page5",
  "paged_decode/page8-HND",
  "paged_decode/seed-example-e4m3",
  "paged_decode/e4m3-scales",
  "paged_decode/e5m2-group3",
  "paged_decode/d64",
  "paged_decode/rope",
  "paged_decode/alibi",
  "paged_decode/window",
  "batch_prefill/ragged-group5-full",
  "batch_prefill/paged-page1-HND",
];
/** The index arrays of an append; FlashInfer's cache was not kept. */
const INDICES = "ops/append";

/** What the others wait for. */
const WAITING: Readonly<Record<string, readonly string[]>> = {
  "merging states, in merge_golden_test.ts": ["batch_prefill/merge-state"],
  "masks, in prefill_golden_test.ts": ["single_prefill/mask", "batch_prefill/paged-mask"],
  "rotating apart from attention": ["ops/rope"],
};

Deno.test("golden: every case is run, or known to wait", () => {
  const waiting = Object.values(WAITING).flat();
  assert.deepEqual([...COVERED, INDICES, ...waiting].sort(), [...GOLDEN_IDS].sort());
  console.log(`golden: ${waiting.length} cases wait for ${Object.keys(WAITING).join(", ")}`);
});

for (const id of COVERED) {
  onEachBackend(`golden: ${id}`, async (device) => {
    const case_ = prepare(id);
    checkGolden(await runDecode(device, case_.inputs), case_);
    const { pages } = case_.golden;
    // On the pages that it had there.
    if (pages && id.startsWith("paged_decode/")) {
      // One tensor, unless a binding of software adapters is too small for it.
      const isJoined = case_.inputs.k.bytes.length < 2 ** 26;
      const run = runPagedDecode({ pageSize: pages.size, order: pages.indices, isJoined });
      checkGolden(await run(device, case_.inputs), case_);
    }
    if (case_.inputs.problem.numRequests === 1) {
      checkGolden(await runSingleDecode(device, case_.inputs), case_);
    }
  });
}

Deno.test(`golden: ${INDICES}`, () => {
  const { appendLens, kvLens, arrays } = goldenIndices(INDICES);
  const indptr = indptrOf(appendLens);
  const { batchIndices, positions } = getBatchIndicesPositions(indptr, kvLens);
  assert.deepEqual({ batchIndices, positions }, arrays);
  const pages = kvLens.map((length) => Math.ceil(length / 16));
  const last = kvLens.map((length, i) => length - 16 * (pages[i] - 1));
  assert.deepEqual([...getSeqLens(indptrOf(pages), last, 16)], kvLens);
});
