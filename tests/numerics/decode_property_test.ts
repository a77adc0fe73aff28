/**
 * Decode against the oracle for random sizes, dtypes, lengths and options.
 *
 * `KVASIR_PROPERTY_RUNS` sets the number of runs on each backend, and `KVASIR_PROPERTY_SEED` draws
 * others than the usual ones; the seed is printed.
 */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import fc from "fast-check";
import {
  checkDecode,
  type DecodeInputs,
  type DecodeSpec,
  describe,
  makeInputs,
} from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow, ofHead } from "../support/oracle.ts";

// Each run on a GPU compiles a kernel, which software adapters do slowly.
const RUNS = Deno.env.get("KVASIR_PROPERTY_RUNS");
const DEFAULT_RUNS = { wasm: 200, gpu: 10 };
const SEED = Number(Deno.env.get("KVASIR_PROPERTY_SEED") ?? 1);

const DTYPES: readonly DType[] = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"];

/** A number for all heads, one for each of so many (cut from 200), or none. */
function scales(min: number, max: number) {
  const scale = fc.double({ min, max, noNaN: true });
  return fc.option(
    fc.oneof(scale, fc.array(scale, { minLength: 200, maxLength: 200, size: "max" })),
    { nil: undefined },
  );
}

/** Options that change what is computed; each is there in some of the calls. */
const OPTIONS = fc.record({
  smScale: fc.double({ min: -0.5, max: 0.5, noNaN: true }),
  windowLeft: fc.integer({ min: -1, max: 160 }),
  logitsSoftCap: fc.double({ min: 0.01, max: 100, noNaN: true }),
  posEncodingMode: fc.constantFrom("NONE" as const, "ROPE_LLAMA" as const, "ALIBI" as const),
  ropeScale: fc.double({ min: 0.5, max: 8, noNaN: true }),
  ropeTheta: fc.double({ min: 10, max: 1e6, noNaN: true }),
  lseBase: fc.constantFrom("log2" as const, "ln" as const),
}, { requiredKeys: [] });

const HEAD_OPTIONS = fc.record({
  qScale: scales(0.1, 2),
  kScale: scales(0.1, 2),
  vScale: scales(-4, 4),
  sinks: fc.option(
    fc.array(fc.double({ min: -20, max: 20, noNaN: true }), {
      minLength: 200,
      maxLength: 200,
      size: "max",
    }),
    { nil: undefined },
  ),
});

const SPECS: fc.Arbitrary<DecodeSpec> = fc.record({
  batch: fc.integer({ min: 1, max: 4 }),
  kvLen: fc.integer({ min: 1, max: 150 }),
  group: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 40 })),
  numKvHeads: fc.integer({ min: 1, max: 4 }),
  eighths: fc.oneof(fc.constantFrom(8, 16), fc.integer({ min: 1, max: 20 })),
  qDtype: fc.constantFrom(...DTYPES),
  kvDtype: fc.constantFrom(...DTYPES),
  outDtype: fc.option(fc.constantFrom(...DTYPES), { nil: undefined }),
  kvLayout: fc.constantFrom("NHD" as const, "HND" as const),
  lengths: fc.option(fc.array(fc.integer({ min: 0, max: 150 }), { minLength: 4, maxLength: 4 })),
  options: OPTIONS,
  ofHeads: HEAD_OPTIONS,
  seed: fc.integer({ min: 1, max: 1000 }),
}).map(({ group, numKvHeads, eighths, lengths, options, ofHeads, ...spec }) => {
  const heads = [group * numKvHeads, numKvHeads] as const;
  const cut = <T>(values: T, count: number) =>
    (Array.isArray(values) ? values.slice(0, count) : values) as T;
  return {
    ...spec,
    ...options,
    heads,
    headDim: eighths * 8,
    seqLens: lengths?.slice(0, spec.batch).map((length) => Math.min(length, spec.kvLen)),
    qScale: cut(ofHeads.qScale, heads[0]),
    kScale: cut(ofHeads.kScale, heads[1]),
    vScale: cut(ofHeads.vScale, heads[1]),
    sinks: cut(ofHeads.sinks, heads[0]),
  };
});

/** How much rounding may take an output out of the hull, relative to it. */
const SLACK: Readonly<Record<DType, number>> = {
  float32: 1e-5,
  float16: 2 ** -10,
  bfloat16: 2 ** -8,
  float8_e4m3fn: 2 ** -4,
  float8_e5m2: 2 ** -3,
};

/** Every output is a mean of values, and of 0 where there is a sink: it lies between their extremes. */
function assertInHull(out: Float32Array, { problem: c, outDtype }: DecodeInputs) {
  const groupSize = c.numQoHeads / c.numKvHeads;
  out.forEach((x, i) => {
    const row = Math.floor(i / c.headDim);
    const request = Math.floor(row / c.numQoHeads);
    const kvLen = c.kvLens?.[request] ?? c.maxKvLen;
    if (kvLen === 0) return assert.ok(Object.is(x, 0), `${x} of no key`);
    const head = Math.floor((row % c.numQoHeads) / groupSize);
    const vScale = ofHead(c.vScale, head);
    let [low, high] = c.sinks ? [0, 0] : [Infinity, -Infinity];
    for (let token = 0; token < kvLen; token++) {
      const value = c.v[cacheRow(c, request, token, head) + i % c.headDim] * vScale;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    const slack = SLACK[outDtype] * Math.max(-low, high, 2 ** -6);
    assert.ok(low - slack <= x && x <= high + slack, `${x} is not in [${low}, ${high}]`);
  });
}

onEachBackend("decode: random calls pass the gate", async (device, name) => {
  const numRuns = RUNS ? Number(RUNS) : DEFAULT_RUNS[name === "wasm" ? "wasm" : "gpu"];
  console.log(`${name}: ${numRuns} random decodes, KVASIR_PROPERTY_SEED=${SEED}`);
  const passes = fc.asyncProperty(SPECS, async (spec) => {
    const inputs = makeInputs(spec);
    const { out } = await checkDecode(device, describe(spec), inputs);
    assertInHull(out, inputs);
  });
  await fc.assert(passes, { numRuns, seed: SEED });
});
