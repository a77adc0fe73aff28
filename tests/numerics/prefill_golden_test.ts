/** The prefill calls against what FlashInfer itself answered on an H200. */

import { onEachBackend } from "../support/device.ts";
import { goldenPrefill } from "../support/golden.ts";
import { checkGolden, prepareWith } from "../support/golden_check.ts";
import { runPagedPrefill } from "../support/paged.ts";
import { runPrefill, runSinglePrefill } from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";

const SINGLE = [
  "group3",
  "group5-full",
  "group1-one-key",
  "group16-decode-like",
  "mask",
  "scale",
  "d64",
  "rope",
  "alibi",
  "bf16",
];
/** Ragged and paged; as padded calls too. */
const BATCHES = ["ragged-group5-full", "paged-page1-HND", "paged-mask"];

const prepare = prepareWith(goldenPrefill);

for (const id of SINGLE) {
  onEachBackend(`golden: single_prefill/${id}, as a prefill`, async (device) => {
    const prepared = prepare(`single_prefill/${id}`);
    checkGolden(await runSinglePrefill(device, prepared.inputs), prepared);
  });
}

for (const id of BATCHES) {
  onEachBackend(`golden: batch_prefill/${id}, as a prefill`, async (device) => {
    const prepared = prepare(`batch_prefill/${id}`);
    checkGolden(await runPrefill(device, prepared.inputs), prepared);
    checkGolden(await runRagged(device, prepared.inputs, "packed"), prepared);
    const { pages } = prepared.golden;
    if (!pages) return;
    // On the pages that it had there.
    const run = runPagedPrefill({ pageSize: pages.size, order: pages.indices }, "packed");
    checkGolden(await run(device, prepared.inputs), prepared);
  });
}
