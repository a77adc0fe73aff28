/** All 25 pairs of dtypes of k and v, on small calls; mixed_formats_test.ts has a few pairs in every call. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import { DTYPES } from "../../src/dtype.ts";
import { onEachBackend } from "../support/device.ts";
import { runPagedDecode, runPagedPrefill } from "../support/paged.ts";
import {
  makePrefill,
  type PrefillRun,
  type PrefillSpec,
  prefillTest,
  runPrefill,
} from "../support/prefill.ts";
import { store } from "../support/storage.ts";

const PAIRS = DTYPES.flatMap((kvDtype) => DTYPES.map((vDtype) => ({ kvDtype, vDtype })));
// Small, since each pair is a kernel to compile.
const DECODE = {
  batch: 3,
  qoLen: 1,
  kvLen: 19,
  heads: [1, 1],
  headDim: 8,
  seqLens: [19, 6, 0],
} as const satisfies PrefillSpec;
const PREFILL = { ...DECODE, qoLen: 9, heads: [2, 1], qoLens: [9, 4, 1], causal: true } as const;

prefillTest("all pairs of formats: decode", PAIRS.map((pair) => ({ ...DECODE, ...pair })), {
  run: runPagedDecode({ pageSize: 5 }),
});
// Slow to compile, so on one rung.
prefillTest("all pairs of formats: prefill", PAIRS.map((pair) => ({ ...PREFILL, ...pair })), {
  only: ["wasm", "webgpu"],
});
prefillTest(
  "all pairs of formats: paged prefill, scales",
  PAIRS.map((pair) => ({ ...PREFILL, ...pair, kScale: 1.5, vScale: 0.75 })),
  { run: runPagedPrefill({ pageSize: 5 }), only: ["wasm"] },
);

const EXACT: readonly (readonly [narrow: DType, wide: DType])[] = [
  ["float8_e5m2", "float16"], // a half's high byte
  ["float8_e4m3fn", "float16"],
  ["float8_e4m3fn", "bfloat16"],
  ["float16", "float32"],
];
/** A narrow k or v gives what the same numbers stored wide do: the pieces differ, the sums do not. */
onEachBackend("all pairs of formats: numbers stored wider give the same result", async (device) => {
  const runs: [PrefillSpec, PrefillRun][] = [
    [DECODE, runPagedDecode({ pageSize: 5 })],
    [PREFILL, runPrefill],
  ];
  for (const [spec, run] of runs) {
    for (const [narrow, wide] of EXACT) {
      // The other operand is as wide, so that pieces have as many elements in both calls.
      const mixed = makePrefill({ ...spec, kvDtype: narrow, vDtype: wide });
      const widened = { ...mixed, k: store(mixed.k.values, wide) };
      const [got, expected] = [await run(device, mixed), await run(device, widened)];
      assert.deepEqual(got, expected, `k ${narrow} and ${wide}, ${spec.qoLen} queries`);
      const values = makePrefill({ ...spec, kvDtype: wide, vDtype: narrow });
      const widenedValues = { ...values, v: store(values.v.values, wide) };
      assert.deepEqual(
        await run(device, values),
        await run(device, widenedValues),
        `v ${narrow} and ${wide}, ${spec.qoLen} queries`,
      );
    }
  }
});
