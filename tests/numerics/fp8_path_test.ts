/**
 * FP8 all the way: q, k, v and the output, in either format, in every call. The output must be, code for
 * code, what the WASM encoder makes of the float32 output of the same call: written by the kernel itself,
 * rounded once, saturating, NaN as NaN.
 */

import assert from "node:assert/strict";
import { decodeFp8, type Device, encodeFp8, type Fp8DType } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { type Call, CALLS, inputsOf, SPLIT_CALLS } from "../support/calls.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import type { PrefillInputs } from "../support/prefill.ts";

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

const SCALES = {
  qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
  kScale: [0.5, 1.25],
  vScale: [2, -0.5],
} as const;

/** Calls whose kernels serve other calls too, so that all formats cost little more. */
const COMMON = [
  "decode of one request",
  "padded decode",
  "prefill of one request",
  "padded prefill",
];

/** Behind what cascades share. */
const ALONE = 44;

/** A call's inputs with NaN in a value and, where v's format has it, infinity, each in one KV head. */
function hardInputs(call: Call, formats: Formats, outScale?: number): PrefillInputs {
  const inputs = inputsOf(call, { ...call.spec, ...SCALES, ...formats, outScale });
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
  call: Call,
  formats: Formats,
  outScale?: number,
): Promise<Float32Array> {
  const { outDtype } = formats;
  const inputs = hardInputs(call, formats, outScale);
  const label = `${name}; ${Object.values(formats).join(", ")}`;
  const exact = await call.run(device, { ...inputs, outDtype: "float32" });
  const got = await call.run(device, { ...inputs, outDtype });
  // Decoding keeps codes apart, those of NaN too: the same bits are the same codes.
  const expected = decodeFp8(encodeFp8(exact.out, outDtype), outDtype);
  assertSameBits(got.out, expected, `${label}: out`);
  assertSameBits(got.lse, exact.lse, `${label}: lse`);
  const { kernels } = device.report;
  assert.ok(kernels.every(({ family }) => family !== "quantize"), `${label}: a pass of its own`);
  return got.out;
}

// Before cascades, which merge too.
for (const [name, call] of Object.entries(SPLIT_CALLS)) {
  onEachBackend(`FP8 all the way: ${name}`, async (device) => {
    for (const formats of [SOME_FORMATS[0], SOME_FORMATS[3]]) {
      await checkEncoded(device, name, call, formats, 0.02 / LARGEST[formats.outDtype]);
    }
    const isMerged = device.report.kernels.some(({ family }) => family === "merge");
    assert.ok(device.backend === "wasm" || isMerged, "keys were not split");
  });
}

for (const [name, call] of Object.entries(CALLS)) {
  onEachBackend(`FP8 all the way: ${name}`, async (device, backend) => {
    const isShort = backend === "webgpu, portable rung" || !COMMON.includes(name);
    for (const formats of isShort ? SOME_FORMATS : ALL_FORMATS) {
      const largest = LARGEST[formats.outDtype];
      // Some half of the values lie beyond the largest.
      const out = await checkEncoded(device, name, call, formats, 0.25 / largest);
      const beyond = out.filter((x) => Math.abs(x) === largest).length;
      const nan = out.filter((x) => Number.isNaN(x)).length;
      assert.ok(beyond > out.length / 50, `${name}: ${beyond} of ${out.length} saturate`);
      assert.ok(nan > 0 && nan < out.length / 10, `${name}: ${nan} of ${out.length} are NaN`);
      assert.ok(out.every((x) => Math.abs(x) !== Infinity), `${name}: infinity was not saturated`);
    }
  });
}

onEachBackend("FP8 all the way: by default the scale of outputs is 1", async (device) => {
  for (const formats of SOME_FORMATS) {
    await checkEncoded(device, "padded decode", CALLS["padded decode"], formats);
  }
});
