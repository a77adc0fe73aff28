/** Paged caches: pages of any size in any order, in both layouts and forms, against the oracle. */

import assert from "node:assert/strict";
import {
  BatchDecodeWithPagedKvCache,
  BatchPrefillWithPagedKvCache,
  type DType,
  MultiLevelCascadeAttention,
} from "@kvasir/attention";
import { assertSameAnswer } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import { runPagedDecode, runPagedPrefill } from "../support/paged.ts";
import { makePrefill, type PrefillSpec, prefillTest, runPrefill } from "../support/prefill.ts";

const DECODE = {
  batch: 6,
  qoLen: 1,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  seqLens: [70, 33, 16, 64, 0, 1],
} as const satisfies PrefillSpec;
const PREFILL = {
  ...DECODE,
  qoLen: 37,
  qoLens: [37, 5, 20, 1, 3, 0],
} as const satisfies PrefillSpec;

for (const pageSize of [1, 3, 16, 100]) {
  for (const isJoined of [true, false]) {
    const form = { pageSize, isJoined };
    const name = `pages of ${pageSize}, ${isJoined ? "one tensor" : "a pair"}`;
    prefillTest(`paged decode: ${name}`, [
      DECODE,
      { ...DECODE, kvLayout: "HND", kvDtype: "float8_e4m3fn" },
    ], { run: runPagedDecode(form) });
    prefillTest(`paged prefill: ${name}`, [
      { ...PREFILL, causal: true },
      { ...PREFILL, kvLayout: "HND", kvDtype: "float16", windowLeft: 20 },
    ], { run: runPagedPrefill(form) });
  }
}

const DTYPES: readonly (readonly [q: DType, kv: DType, out: DType])[] = [
  ["float16", "float8_e4m3fn", "float16"],
  ["bfloat16", "bfloat16", "float32"],
  ["float8_e5m2", "float8_e5m2", "float8_e4m3fn"],
];
const options = DTYPES.map(([qDtype, kvDtype, outDtype], i) => ({
  headDim: 24,
  qDtype,
  kvDtype,
  outDtype,
  kvLayout: i % 2 ? "HND" : "NHD",
  posEncodingMode: i ? "ALIBI" : "ROPE_LLAMA",
  qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
  kScale: [0.5, 1.25],
  vScale: [2, -0.5],
  outScale: 0.125,
  windowLeft: 25,
  logitsSoftCap: 3,
  sinks: [-1, 0, 1, 2, -3, 4],
  lseBase: "ln",
} as const));
prefillTest(
  "paged decode: dtypes and every option",
  options.map((spec) => ({ ...DECODE, ...spec })),
  { run: runPagedDecode({ pageSize: 5 }) },
);
prefillTest(
  "paged prefill: dtypes and every option",
  options.map((spec, i) => ({ ...PREFILL, ...spec, causal: i !== 1, headDimV: 16 })),
  { run: runPagedPrefill({ pageSize: 5 }) },
);
prefillTest("paged prefill: masks", [
  { ...PREFILL, maskDensity: 0.4 },
  { ...PREFILL, maskDensity: 0.4, kvLayout: "HND" },
], { run: runPagedPrefill({ pageSize: 7 }, "packed") });

/** For large groups: lavapipe takes 2 s to compile such kernels, and 10 s where a row takes 2 lanes. */
const WIDE = 64;
prefillTest(
  "paged decode: every group",
  [1, 2, 3, 4, 5, 6, 7, 8, 9, 16].map((group) => ({
    ...DECODE,
    heads: [2 * group, 2] as const,
    headDim: group > 4 ? WIDE : 16,
    kvDtype: "float16" as const,
  })),
  { run: runPagedDecode({ pageSize: 16 }) },
);
prefillTest("paged decode: long requests, split", [
  { ...DECODE, batch: 2, kvLen: 3000, seqLens: [3000, 1777], kvDtype: "float16" },
], { run: runPagedDecode({ pageSize: 16 }) });
// More requests than a GPU takes at once are not split: their pages are looked up step by step.
prefillTest("paged decode: many requests of some steps", [
  { ...DECODE, batch: 270, kvLen: 200, seqLens: undefined, heads: [2, 2], headDim: 32 },
], { run: runPagedDecode({ pageSize: 16 }) });
// Rows that a team has in flight may lie on two pages where a window begins anywhere.
prefillTest(
  "paged decode: windows that begin within a page",
  [300, 301, 302, 303].map((windowLeft) => ({
    ...DECODE,
    kvLen: 700,
    seqLens: [700, 533, 316, 64, 0, 1],
    windowLeft,
  })),
  { run: runPagedDecode({ pageSize: 16 }) },
);
prefillTest("paged prefill: long requests, split", [
  { ...DECODE, qoLen: 9, batch: 2, kvLen: 3000, seqLens: [3000, 1777], causal: true },
], { run: runPagedPrefill({ pageSize: 16 }) });

onEachBackend("paged calls: the order of pages and their size change no bit", async (device) => {
  for (const kvLayout of ["NHD", "HND"] as const) {
    const spec: PrefillSpec = {
      ...DECODE,
      kvLen: 700,
      seqLens: [700, 33, 16, 640, 0, 1],
      kvLayout,
    };
    const inputs = makePrefill(spec);
    const first = await runPagedDecode({ pageSize: 16 })(device, inputs);
    for (const form of [{ pageSize: 16, seed: 5, spare: 9 }, { pageSize: 1 }, { pageSize: 64 }]) {
      const label = `${kvLayout}, ${JSON.stringify(form)}`;
      assertSameAnswer(await runPagedDecode(form)(device, inputs), first, label);
    }
    const rows = makePrefill({ ...PREFILL, kvLayout, causal: true });
    const prefilled = await runPagedPrefill({ pageSize: 16 })(device, rows);
    assertSameAnswer(
      await runPagedPrefill({ pageSize: 3, isJoined: false, seed: 3 })(device, rows),
      prefilled,
      `${kvLayout}, prefill`,
    );
  }
});

onEachBackend("paged calls: what padded calls give, bit by bit", async (device) => {
  // One chunking: lengths alone decide how keys are split.
  for (const kvDtype of ["float32", "float8_e4m3fn"] as const) {
    const decode = makePrefill({ ...DECODE, kvDtype });
    const padded = await runPrefill(device, decode);
    assertSameAnswer(await runPagedDecode({ pageSize: 16 })(device, decode), padded, kvDtype);
    const prefill = makePrefill({ ...PREFILL, kvDtype, causal: true });
    const whole = await runPrefill(device, prefill);
    const paged = await runPagedPrefill({ pageSize: 16 })(device, prefill);
    paged.out.forEach((x, i) =>
      assert.ok(Math.abs(x - whole.out[i]) < 4e-6, `${kvDtype} out ${i}`)
    );
  }
});

onEachBackend("paged calls: no request, no key, no page", async (device) => {
  const sizes = { numQoHeads: 4, numKvHeads: 2, headDim: 8, pageSize: 4 } as const;
  const dtypes = { qDtype: "float32", kvDtype: "float32" } as const;
  const ones = (rows: number) =>
    device.tensor(new Float32Array(rows * 32).fill(1), [rows, 4, 8], "float32");
  for (const pages of [[], [0], [0, 1]]) {
    const indptr = [0, ...pages.map((_, i) => pages.slice(0, i + 1).reduce((a, b) => a + b))];
    const count = indptr[pages.length];
    const indices = new Array(count).fill(0);
    const lens = pages.map((has) => 2 * has);
    const level = {
      qoIndptr: indptr.map((_, i) => 2 * i),
      pagedKvIndptr: indptr,
      pagedKvIndices: indices,
      pagedKvLastPageLen: lens,
    };
    using decode = new BatchDecodeWithPagedKvCache(device);
    using prefill = new BatchPrefillWithPagedKvCache(device);
    using cascade = new MultiLevelCascadeAttention(device, { numLevels: 2 });
    decode.plan({ ...sizes, ...dtypes, indptr, indices, lastPageLen: lens });
    prefill.plan({ ...sizes, ...dtypes, ...level });
    cascade.plan({ ...sizes, ...dtypes, levels: [level, level] });
    for (const numPages of count === 0 ? [0, 1] : [1]) {
      using cache = device.empty([numPages, 2, 4, 2, 8], "float32");
      // Keys of 0: each is as likely as the other. A cascade sees them twice.
      for (
        const [planned, rows, keys] of [[decode, 1, 2], [prefill, 2, 2], [cascade, 2, 4]] as const
      ) {
        using q = ones(rows * pages.length);
        const { out, lse } = await planned.run(q, cache, { returnLse: true });
        const expected = pages.flatMap((has) =>
          new Array(4 * rows).fill(has ? Math.log2(keys) : -Infinity)
        );
        assert.deepEqual([...await lse.read()], expected, `${pages}, ${numPages} pages`);
        assert.ok((await out.read()).every((x) => x === 0));
        out.destroy();
        lse.destroy();
      }
    }
  }
});
