/** Prefill over caches whose tokens have scales of their own, in every kind of cache, against the oracle. */

import { assertSameAnswer } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import { runPagedPrefill } from "../support/paged.ts";
import {
  checkPrefill,
  makePrefill,
  type PrefillSpec,
  prefillTest,
  runPrefill,
  runSinglePrefill,
} from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";
import { scaleIndex } from "../support/token_scales.ts";

const SPEC = {
  batch: 6,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  seqLens: [70, 33, 16, 64, 0, 1],
  qoLen: 37,
  qoLens: [37, 5, 20, 1, 3, 0],
  kvDtype: "float8_e4m3fn",
  tokenScales: true,
} as const satisfies PrefillSpec;

prefillTest("prefill: scales of tokens, every dtype and layout", [
  { ...SPEC, causal: true },
  { ...SPEC, kvLayout: "HND", kvDtype: "float8_e5m2", windowLeft: 20 },
  { ...SPEC, kvDtype: "float16", headDim: 64, headDimV: 24, maskDensity: 0.4 },
]);
prefillTest(
  "prefill: scales of tokens with every option",
  (["ROPE_LLAMA", "ALIBI"] as const).map((posEncodingMode, i) => ({
    ...SPEC,
    kvDtype: i ? "float8_e5m2" : "float8_e4m3fn",
    posEncodingMode,
    kScale: [0.5, 1.25],
    vScale: [2, -0.5],
    windowLeft: 25,
    logitsSoftCap: 3,
    sinks: [-1, 0, 1, 2, -3, 4],
    causal: true,
  })),
);
prefillTest("prefill: scales of tokens, wide tiles", [
  { ...SPEC, batch: 1, heads: [8, 2], headDim: 128, qoLen: 150, kvLen: 300, ...whole() },
]);
prefillTest("ragged prefill: scales of tokens", [
  { ...SPEC, causal: true },
  { ...SPEC, kvLayout: "HND", posEncodingMode: "ROPE_LLAMA" },
], { run: runRagged });
prefillTest("single prefill: scales of tokens", [
  { ...SPEC, batch: 1, ...whole(), causal: true },
], { run: runSinglePrefill });
for (const pageSize of [1, 5, 16]) {
  prefillTest(`paged prefill: scales of tokens, pages of ${pageSize}`, [
    { ...SPEC, causal: true },
    { ...SPEC, kvLayout: "HND", posEncodingMode: "ROPE_LLAMA", maskDensity: 0.5 },
  ], { run: runPagedPrefill({ pageSize, isJoined: pageSize !== 5 }) });
}
prefillTest("paged prefill: scales of tokens, split", [
  {
    ...SPEC,
    batch: 2,
    qoLen: 9,
    qoLens: undefined,
    kvLen: 3000,
    seqLens: [3000, 1777],
    causal: true,
  },
], { run: runPagedPrefill({ pageSize: 16 }) });

function whole() {
  return { seqLens: undefined, qoLens: undefined };
}

onEachBackend("prefill: scales of keys that no query sees may be anything", async (device) => {
  // Every query sees keys 10 to 19 of 40, by a mask.
  const spec = { ...SPEC, batch: 1, qoLen: 3, kvLen: 40, ...whole() } as const;
  const mask = Array.from({ length: 3 * 40 }, (_, i) => i % 40 >= 10 && i % 40 < 20);
  const inputs = makePrefill(spec, undefined, mask);
  const clean = await checkPrefill(device, "finite", inputs);
  for (const value of [NaN, Infinity, -Infinity]) {
    const kvScales = inputs.problem.kvScales!.slice();
    for (let token = 0; token < 40; token++) {
      if (token >= 10 && token < 20) continue;
      for (const part of [0, 1]) {
        for (const head of [0, 1]) {
          kvScales[scaleIndex(inputs.problem, 0, part, head, token)] = value;
        }
      }
    }
    const problem = { ...inputs.problem, kvScales };
    assertSameAnswer(await runPrefill(device, { ...inputs, problem }), clean, `${value}`);
  }
});
