/**
 * The whole path in FP8: queries, cache and output. Every call's output is, byte for byte, what `encodeFp8`
 * makes of the float32 output of the same call (with the same `outScale`), and no pass of its own makes
 * it: the kernel that ends the call writes FP8.
 */

import assert from "node:assert/strict";
import { decodeFp8, type Device, encodeFp8, type Fp8DType } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { runCascade, type SharedPrefix, shareKeys } from "../support/cascade.ts";
import { runDecode, runSingleDecode } from "../support/decode.ts";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import { runPagedDecode, runPagedPrefill } from "../support/paged.ts";
import {
  drawPrefill,
  makePrefill,
  type PrefillInputs,
  type PrefillRun,
  type PrefillSpec,
  runPrefill,
  runSinglePrefill,
} from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";
import { fillWithNan } from "../support/storage.ts";

const [E4M3, E5M2] = ["float8_e4m3fn", "float8_e5m2"] as const;
const FP8 = [E4M3, E5M2] as const;
const HEADS = [6, 3] as const;
const HEAD_DIM = 16;
/** Of the largest finite number. */
const LARGEST_CODE = { float8_e4m3fn: 0x7e, float8_e5m2: 0x7b };
const LEAST_NORMAL_CODE = { float8_e4m3fn: 0x08, float8_e5m2: 0x04 };

/** Formats of q, k, v and the output. */
type Formats = readonly [q: Fp8DType, k: Fp8DType, v: Fp8DType, out: Fp8DType];
const ALL: readonly Formats[] = FP8.flatMap((q) =>
  FP8.flatMap((k) => FP8.flatMap((v) => FP8.map((out) => [q, k, v, out] as const)))
);
/** Each two of q, cache and output in all combinations. */
const EACH_TWO: readonly Formats[] = [
  [E4M3, E5M2, E5M2, E5M2],
  [E5M2, E4M3, E4M3, E5M2],
  [E4M3, E4M3, E4M3, E4M3],
  [E5M2, E5M2, E5M2, E4M3],
];
/** Each format once in each place. */
const EACH_ONE: readonly Formats[] = [[E4M3, E5M2, E5M2, E4M3], [E5M2, E4M3, E4M3, E5M2]];
/** Keys and values that differ. */
const MIXED: readonly Formats[] = [[E5M2, E4M3, E5M2, E4M3], [E4M3, E5M2, E4M3, E5M2]];

const DECODE = {
  batch: 3,
  qoLen: 1,
  kvLen: 40,
  heads: HEADS,
  headDim: HEAD_DIM,
  seqLens: [40, 0, 17],
} as const satisfies PrefillSpec;
const PREFILL = { ...DECODE, qoLen: 5, qoLens: [5, 3, 1], causal: true } as const;
const LONG = { ...DECODE, kvLen: 1500, seqLens: [1500, 0, 700] } as const;
const LONG_PREFILL = { ...PREFILL, kvLen: 1500, seqLens: [1500, 0, 700] } as const;
const CASCADE = { ...PREFILL, seqLens: [40, 12, 30], qoLens: [5, 3, 1] } as const;
const SHARED: readonly SharedPrefix[] = [{ tokens: 12, groups: [0] }];

interface Call {
  readonly name: string;
  readonly spec: PrefillSpec;
  readonly run: PrefillRun;
  /** On GPUs, where each costs two kernels; WASM has all, and the portable rung every other. */
  readonly formats: readonly Formats[];
  /** The family of the kernel that ends the call on a GPU. */
  readonly last: "decode" | "prefill" | "merge";
  readonly shared?: readonly SharedPrefix[];
}

const CALLS: readonly Call[] = [
  { name: "padded decode", spec: DECODE, run: runDecode, formats: EACH_TWO, last: "decode" },
  {
    name: "single decode",
    spec: { ...DECODE, batch: 1, seqLens: undefined },
    run: runSingleDecode,
    formats: EACH_TWO,
    last: "decode",
  },
  { name: "padded decode, split", spec: LONG, run: runDecode, formats: EACH_TWO, last: "merge" },
  {
    name: "paged decode",
    spec: DECODE,
    run: runPagedDecode({ pageSize: 5 }),
    formats: MIXED,
    last: "decode",
  },
  {
    name: "paged decode of a pair, split",
    spec: { ...LONG, kvLayout: "HND" },
    run: runPagedDecode({ pageSize: 5, isJoined: false }),
    formats: MIXED,
    last: "merge",
  },
  { name: "padded prefill", spec: PREFILL, run: runPrefill, formats: EACH_TWO, last: "prefill" },
  {
    name: "single prefill, split",
    spec: { ...LONG_PREFILL, batch: 1, qoLens: undefined, seqLens: undefined },
    run: runSinglePrefill,
    formats: EACH_TWO,
    last: "merge",
  },
  { name: "ragged prefill", spec: PREFILL, run: runRagged, formats: EACH_ONE, last: "prefill" },
  {
    name: "paged prefill",
    spec: PREFILL,
    run: runPagedPrefill({ pageSize: 5 }),
    formats: MIXED,
    last: "prefill",
  },
  {
    name: "cascade",
    spec: CASCADE,
    run: runCascade(5, SHARED),
    formats: MIXED,
    last: "merge",
    shared: SHARED,
  },
];

/** Columns of v are apart by powers of two; the output's heads too, so that some saturate. */
function makeInputs(
  { spec, shared }: Call,
  [qDtype, kvDtype, vDtype, outDtype]: Formats,
): PrefillInputs {
  const full: PrefillSpec = {
    ...spec,
    qDtype,
    kvDtype,
    vDtype,
    outDtype,
    qScale: 0.75,
    kScale: [0.5, 1.25, 1],
    vScale: [2 ** -8, 30_000, 1],
    outScale: 0.3,
  };
  const values = drawPrefill(full);
  values.v.forEach((x, i) => values.v[i] = x * 2 ** (i % HEAD_DIM - 8));
  const inputs = makePrefill(full, values);
  if (shared) shareKeys(inputs, shared);
  // In the first request, KV head 0 has NaN in one column of v, and KV head 2 in a key.
  for (const [stored, head] of [[inputs.v, 0], [inputs.k, 2]] as const) {
    const at = cacheRow(inputs.problem, 0, 13, head) + 3;
    fillWithNan(stored, at, at + 1);
  }
  return inputs;
}

/** What an output must hold, for the comparison to say much. */
function assertTelling(codes: Uint8Array, dtype: Fp8DType, label: string): void {
  const magnitudes = Array.from(codes, (code) => code & 0x7f);
  const has = (what: string, test: (code: number) => boolean) =>
    assert.ok(magnitudes.some(test), `${label}: nothing is ${what}`);
  has("NaN", (code) => code === 0x7f);
  has("saturated", (code) => code === LARGEST_CODE[dtype]);
  has("subnormal", (code) => code > 0 && code < LEAST_NORMAL_CODE[dtype]);
  has("normal", (code) => code >= LEAST_NORMAL_CODE[dtype] && code < LARGEST_CODE[dtype]);
  assert.ok(codes.every((code) => code !== 0xff), `${label}: a NaN has a sign`);
}

async function check(device: Device, backend: BackendName, call: Call, formats: Formats) {
  const inputs = makeInputs(call, formats);
  const { outDtype } = inputs as PrefillInputs & { readonly outDtype: Fp8DType };
  const label = `${call.name}: q, k, v and out ${formats.join(", ")}`;
  const wide = await call.run(device, { ...inputs, outDtype: "float32" });
  const got = await call.run(device, inputs);
  const codes = encodeFp8(wide.out, outDtype);
  assertTelling(codes, outDtype, label);
  // Different codes are different floats, NaN's too, as a test below says.
  assertSameBits(got.out, decodeFp8(codes, outDtype), label);
  assertSameBits(got.lse, wide.lse, `${label}: lse`);
  if (backend === "wasm") return;
  const { kernels } = device.report;
  const ends = kernels.some(({ family, variant }) =>
    family === call.last && variant.includes(`.out-${outDtype}.`)
  );
  assert.ok(ends, `${label}: no ${call.last} kernel writes it`);
  assert.ok(kernels.every(({ family }) => family !== "quantize"), `${label}: a pass of its own`);
}

for (const call of CALLS) {
  onEachBackend(`FP8 path: ${call.name}`, async (device, backend) => {
    const some = call.formats.filter((_, i) => backend === "webgpu" || i % 2 === 1);
    for (const formats of backend === "wasm" ? ALL : some) {
      await check(device, backend, call, formats);
    }
  });
}

Deno.test("FP8 path: every code is a float of its own, and NaN's codes too", () => {
  const all = Uint8Array.from({ length: 256 }, (_, code) => code);
  for (const dtype of FP8) {
    const bits = new Uint32Array(decodeFp8(all, dtype).buffer);
    assert.equal(new Set(bits).size, 256, dtype);
  }
});
