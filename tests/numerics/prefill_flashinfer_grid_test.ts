/**
 * The grid of FlashInfer's own prefill tests, with the sizes that only take time cut: the float64
 * oracle is slow. Their reference is their own code.
 */

import { type PrefillSpec, prefillTest } from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";

const HALF = { qDtype: "float16", kvDtype: "float16" } as const;
const LAYOUTS = ["NHD", "HND"] as const;

// test_single_prefill.py
for (const headDim of [64, 128]) {
  prefillTest(
    `FlashInfer's grid: single prefill, head dim ${headDim}`,
    [[127, 501, 4], [37, 501, 4], [37, 1021, 4]].map(([qoLen, kvLen, heads], i): PrefillSpec => ({
      ...HALF,
      qoLen,
      kvLen,
      heads: [heads, 1],
      headDim,
      causal: i !== 1,
    })),
  );
}

prefillTest("FlashInfer's grid: seven heads on one", [
  { ...HALF, qoLen: 37, kvLen: 501, heads: [7, 1], headDim: 64, causal: true },
]);

// test_batch_prefill_kernels.py
const LENGTHS = [[54, 37], [97, 17], [54, 54], [97, 1]];

for (const [title, run] of [["padded", undefined], ["ragged", runRagged]] as const) {
  prefillTest(
    `FlashInfer's grid: batch prefill, ${title}`,
    LENGTHS.map(([kvLen, qoLen], i): PrefillSpec => ({
      ...HALF,
      batch: 5,
      qoLen,
      kvLen,
      heads: [4, 4],
      headDim: 64,
      causal: i % 2 === 0,
      kvLayout: LAYOUTS[i % 2],
      qoLens: [qoLen, 1, 0, Math.min(qoLen, 16), qoLen],
      seqLens: [kvLen, 1, 17, 0, kvLen],
    })),
    { run },
  );
}

// test_fp8_prefill.py
for (const kvDtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
  prefillTest(
    `FlashInfer's grid: prefill over ${kvDtype}`,
    [1, 7, 53].map((qoLen, i) => ({
      qDtype: "float16",
      kvDtype,
      batch: 2,
      qoLen,
      kvLen: 97,
      heads: [4, 4] as const,
      headDim: 64,
      kvLayout: LAYOUTS[i % 2],
      causal: true,
      kScale: 0.5,
      vScale: 2,
    })),
  );
}

// test_sliding_window.py
prefillTest(
  "FlashInfer's grid: prefill's sliding windows",
  [1, 19, 99, 199].flatMap((kvLen) =>
    [3, 13, 43].map((windowLeft) => ({
      ...HALF,
      qoLen: Math.min(kvLen, 37),
      kvLen,
      heads: [4, 4] as const,
      headDim: 64,
      windowLeft,
      causal: true,
    }))
  ),
);

// test_logits_cap.py
prefillTest(
  "FlashInfer's grid: prefill's soft caps",
  [1, 9, 81].flatMap((kvLen) =>
    [1, 30, 50].map((logitsSoftCap) => ({
      ...HALF,
      qoLen: kvLen,
      kvLen,
      heads: [4, 4] as const,
      headDim: 64,
      logitsSoftCap,
    }))
  ),
);

// test_alibi.py
prefillTest(
  "FlashInfer's grid: prefill's ALiBi",
  [[1, 1], [17, 81], [81, 81]].map(([qoLen, kvLen]) => ({
    ...HALF,
    qoLen,
    kvLen,
    heads: [8, 8] as const,
    headDim: 64,
    causal: true,
    posEncodingMode: "ALIBI" as const,
  })),
);
