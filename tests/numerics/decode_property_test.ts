/**
 * Decode against the oracle for random sizes, dtypes, lengths and scales.
 *
 * `KVASIR_PROPERTY_RUNS` sets the number of runs on each backend, and `KVASIR_PROPERTY_SEED` draws
 * others than the usual ones; the seed is printed.
 */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import fc from "fast-check";
import { checkDecode, type DecodeSpec, describe, makeInputs } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";

// Each run on a GPU compiles a kernel, which software adapters do slowly.
const RUNS = Deno.env.get("KVASIR_PROPERTY_RUNS");
const DEFAULT_RUNS = { wasm: 200, gpu: 10 };
const SEED = Number(Deno.env.get("KVASIR_PROPERTY_SEED") ?? 1);

const SPECS: fc.Arbitrary<DecodeSpec> = fc.record({
  batch: fc.integer({ min: 1, max: 4 }),
  kvLen: fc.integer({ min: 1, max: 150 }),
  group: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 40 })),
  numKvHeads: fc.integer({ min: 1, max: 4 }),
  eighths: fc.oneof(fc.constantFrom(8, 16), fc.integer({ min: 1, max: 20 })),
  qDtype: fc.constantFrom<DType>("float32", "float16", "bfloat16"),
  kvDtype: fc.constantFrom<DType>(
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
  ),
  kvLayout: fc.constantFrom("NHD" as const, "HND" as const),
  lengths: fc.option(fc.array(fc.integer({ min: 0, max: 150 }), { minLength: 4, maxLength: 4 })),
  smScale: fc.option(fc.double({ min: -0.5, max: 0.5, noNaN: true }), { nil: undefined }),
  kScale: fc.option(fc.double({ min: 0.1, max: 2, noNaN: true }), { nil: undefined }),
  vScale: fc.option(fc.double({ min: -4, max: 4, noNaN: true }), { nil: undefined }),
  seed: fc.integer({ min: 1, max: 1000 }),
}).map(({ group, numKvHeads, eighths, lengths, ...spec }) => ({
  ...spec,
  heads: [group * numKvHeads, numKvHeads] as const,
  headDim: eighths * 8,
  seqLens: lengths?.slice(0, spec.batch).map((length) => Math.min(length, spec.kvLen)),
}));

/** Every output is a mean of values, so it lies between their extremes. */
function assertInHull(out: Float32Array, { problem: c }: ReturnType<typeof makeInputs>) {
  const groupSize = c.numQoHeads / c.numKvHeads;
  const vScale = c.vScale ?? 1;
  out.forEach((x, i) => {
    const row = Math.floor(i / c.headDim);
    const request = Math.floor(row / c.numQoHeads);
    const kvLen = c.kvLens?.[request] ?? c.maxKvLen;
    if (kvLen === 0) return;
    const head = Math.floor((row % c.numQoHeads) / groupSize);
    let [low, high] = [Infinity, -Infinity];
    for (let token = 0; token < kvLen; token++) {
      const value = c.v[cacheRow(c, request, token, head) + i % c.headDim] * Number(vScale);
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    const slack = 2 ** -8 * Math.max(-low, high, 1e-3); // bfloat16 rounds that much
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
