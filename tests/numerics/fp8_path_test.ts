/**
 * FP8 all the way: q, k, v and the output, in either format, in every call. The output must be, code for
 * code, what the WASM encoder makes of the float32 output of the same call: written by the kernel itself,
 * rounded once, saturating, NaN as NaN.
 */

import assert from "node:assert/strict";
import { decodeFp8, type Device, encodeFp8, type Fp8DType } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { runCascade, shareKeys } from "../support/cascade.ts";
import { runDecode, runSingleDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import { runPagedDecode, runPagedPrefill } from "../support/paged.ts";
import {
  describePrefill,
  makePrefill,
  type PrefillInputs,
  type PrefillRun,
  type PrefillSpec,
  runPrefill,
  runSinglePrefill,
} from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";

const LARGEST = { float8_e4m3fn: 448, float8_e5m2: 57344 } as const;
const BOTH = ["float8_e4m3fn", "float8_e5m2"] as const;

interface Formats {
  readonly qDtype: Fp8DType;
  readonly kvDtype: Fp8DType;
  readonly vDtype: Fp8DType;
  readonly outDtype: Fp8DType;
}

const [E4M3, E5M2] = BOTH;
/** Every combination of any three of the four. */
const ALL_FORMATS: readonly Formats[] = BOTH.flatMap((qDtype) =>
  BOTH.flatMap((kvDtype) =>
    BOTH.map((outDtype) => {
      const count = [qDtype, kvDtype, outDtype].filter((dtype) => dtype === E5M2).length;
      return { qDtype, kvDtype, vDtype: BOTH[count % 2], outDtype };
    })
  )
);
/** Every combination of two, k and v alike: each costs two kernels. */
const SOME_FORMATS: readonly Formats[] = [
  { qDtype: E4M3, kvDtype: E4M3, vDtype: E4M3, outDtype: E4M3 },
  { qDtype: E4M3, kvDtype: E5M2, vDtype: E5M2, outDtype: E5M2 },
  { qDtype: E5M2, kvDtype: E4M3, vDtype: E4M3, outDtype: E5M2 },
  { qDtype: E5M2, kvDtype: E5M2, vDtype: E5M2, outDtype: E4M3 },
];

const DECODE: PrefillSpec = {
  batch: 5,
  qoLen: 1,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  seqLens: [70, 33, 0, 64, 1],
  qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
  kScale: [0.5, 1.25],
  vScale: [2, -0.5],
};
const PREFILL: PrefillSpec = { ...DECODE, qoLen: 19, qoLens: [19, 5, 3, 0, 1], causal: true };
const SINGLE = { batch: 1, seqLens: undefined, qoLens: undefined } as const;
const SPLIT = { batch: 2, kvLen: 3000, seqLens: [3000, 1777] } as const;
const SHARED = [{ tokens: 40, groups: [0] }];
const CASCADE: PrefillSpec = {
  ...DECODE,
  qoLen: 4,
  qoLens: [1, 4, 0, 1, 3],
  seqLens: [70, 61, 46, 40, 48],
};

/** Where a shared prefix ends: what is put into a single request must lie behind it. */
const ALONE = 44;

interface Call {
  readonly spec: PrefillSpec;
  readonly run: PrefillRun;
  readonly formats: readonly Formats[];
}

const call = (
  spec: PrefillSpec,
  run: PrefillRun,
  formats: readonly Formats[] = SOME_FORMATS,
): Call => ({ spec, run, formats });
const CALLS: Readonly<Record<string, Call>> = {
  "decode of one request": call({ ...DECODE, ...SINGLE }, runSingleDecode, ALL_FORMATS),
  "padded decode": call(DECODE, runDecode, ALL_FORMATS),
  "paged decode": call(DECODE, runPagedDecode({ pageSize: 16 })),
  "prefill of one request": call({ ...PREFILL, ...SINGLE }, runSinglePrefill, ALL_FORMATS),
  "padded prefill": call(PREFILL, runPrefill, ALL_FORMATS),
  "ragged prefill": call(PREFILL, runRagged),
  "paged prefill": call(PREFILL, runPagedPrefill({ pageSize: 5 })),
  "cascade": call(CASCADE, runCascade(7, SHARED)),
};
const ENDS = [SOME_FORMATS[0], SOME_FORMATS[3]];
const SPLIT_CALLS: Readonly<Record<string, Call>> = {
  "padded decode, split": call({ ...DECODE, ...SPLIT }, runDecode, ENDS),
  "paged decode, split": call({ ...DECODE, ...SPLIT }, runPagedDecode({ pageSize: 16 }), ENDS),
  "padded prefill, split": call(
    { ...DECODE, ...SPLIT, qoLen: 9, causal: true },
    runPrefill,
    ENDS,
  ),
};

/** A call with NaN in a value and, where v's format has it, infinity, each in a request and head alone. */
function inputsOf(name: string, spec: PrefillSpec): PrefillInputs {
  const inputs = makePrefill(spec);
  if (name === "cascade") shareKeys(inputs, SHARED);
  const { v, problem } = inputs;
  v.bytes[cacheRow(problem, 0, ALONE, 0) + 3] = 0x7f;
  v.bytes[cacheRow(problem, 0, ALONE, 0) + 5] = 0xff;
  if (v.dtype === "float8_e5m2") {
    v.bytes[cacheRow(problem, 0, ALONE, 1) + 4] = 0x7c;
    v.bytes[cacheRow(problem, 0, ALONE, 1) + 7] = 0xfc;
  }
  return inputs;
}

/** Checks that the FP8 output is the float32 one, encoded; gives the decoded output. */
async function checkEncoded(
  device: Device,
  name: string,
  spec: PrefillSpec & Formats,
  run: PrefillRun,
): Promise<Float32Array> {
  const { outDtype } = spec;
  const inputs = inputsOf(name, spec);
  const label = `${name}; ${describePrefill(spec)}`;
  const exact = await run(device, { ...inputs, outDtype: "float32" });
  const got = await run(device, { ...inputs, outDtype });
  // Decoding keeps codes apart, those of NaN too: the same bits are the same codes.
  const expected = decodeFp8(encodeFp8(exact.out, outDtype), outDtype);
  assertSameBits(got.out, expected, `${label}: out`);
  assertSameBits(got.lse, exact.lse, `${label}: lse`);
  return got.out;
}

// Before cascades, which merge too.
for (const [name, { spec, run, formats }] of Object.entries(SPLIT_CALLS)) {
  onEachBackend(`FP8 all the way: ${name}`, async (device) => {
    for (const own of formats) {
      const outScale = 0.02 / LARGEST[own.outDtype];
      await checkEncoded(device, name, { ...spec, ...own, outScale }, run);
    }
    const isMerged = device.report.kernels.some(({ family }) => family === "merge");
    assert.ok(device.backend === "wasm" || isMerged, "keys were not split");
  });
}

for (const [name, { spec, run, formats }] of Object.entries(CALLS)) {
  onEachBackend(`FP8 all the way: ${name}`, async (device, backend) => {
    for (const own of backend === "webgpu, portable rung" ? SOME_FORMATS : formats) {
      const largest = LARGEST[own.outDtype];
      // Some half of the values lie beyond the largest.
      const out = await checkEncoded(
        device,
        name,
        { ...spec, ...own, outScale: 0.25 / largest },
        run,
      );
      const beyond = out.filter((x) => Math.abs(x) === largest).length;
      const nan = out.filter((x) => Number.isNaN(x)).length;
      assert.ok(beyond > out.length / 50, `${name}: ${beyond} of ${out.length} saturate`);
      assert.ok(nan > 0 && nan < out.length / 10, `${name}: ${nan} of ${out.length} are NaN`);
      assert.ok(out.every((x) => Math.abs(x) !== Infinity), `${name}: infinity was not saturated`);
    }
  });
}

onEachBackend("FP8 all the way: by default the scale of outputs is 1", async (device) => {
  for (const own of SOME_FORMATS) {
    await checkEncoded(device, "padded decode", { ...DECODE, ...own }, runDecode);
  }
});
