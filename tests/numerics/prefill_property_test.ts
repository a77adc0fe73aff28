/**
 * Prefill against the oracle for random sizes, dtypes, lengths, masks and options, padded and ragged.
 *
 * `KVASIR_PROPERTY_RUNS` sets the number of runs on each backend, and `KVASIR_PROPERTY_SEED` draws
 * others than the usual ones; the seed is printed.
 */

import type { DType } from "@kvasir/attention";
import fc from "fast-check";
import { onEachBackend } from "../support/device.ts";
import {
  checkPrefill,
  describePrefill,
  makePrefill,
  type PrefillSpec,
  runPrefill,
} from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";

// Each run on a GPU compiles a kernel, which software adapters do slowly.
const RUNS = Deno.env.get("KVASIR_PROPERTY_RUNS");
const DEFAULT_RUNS = { wasm: 80, gpu: 6 };
const SEED = Number(Deno.env.get("KVASIR_PROPERTY_SEED") ?? 1);

const DTYPES: readonly DType[] = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"];

const number = (min: number, max: number) => fc.double({ min, max, noNaN: true });
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
/** A number for each of so many heads, cut to how many there are. */
const perHead = (min: number, max: number) =>
  maybe(fc.array(number(min, max), { minLength: 80, maxLength: 80, size: "max" }));
const lengths = (max: number) =>
  maybe(fc.array(fc.integer({ min: 0, max }), { minLength: 4, maxLength: 4 }));

const OPTIONS = fc.record({
  causal: fc.boolean(),
  maskDensity: fc.constantFrom(0.02, 0.5, 0.95),
  smScale: number(-0.5, 0.5),
  windowLeft: fc.integer({ min: -1, max: 100 }),
  logitsSoftCap: number(0.01, 100),
  posEncodingMode: fc.constantFrom("NONE" as const, "ROPE_LLAMA" as const, "ALIBI" as const),
  ropeScale: number(0.5, 8),
  ropeTheta: number(10, 1e6),
  lseBase: fc.constantFrom("log2" as const, "ln" as const),
}, { requiredKeys: [] });

const SPECS: fc.Arbitrary<PrefillSpec> = fc.record({
  batch: fc.integer({ min: 1, max: 4 }),
  qoLen: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 70 })),
  kvLen: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 100 })),
  group: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 10, max: 20 })),
  numKvHeads: fc.integer({ min: 1, max: 3 }),
  eighths: fc.integer({ min: 1, max: 9 }),
  eighthsV: maybe(fc.integer({ min: 1, max: 9 })),
  qDtype: fc.constantFrom(...DTYPES),
  kvDtype: fc.constantFrom(...DTYPES),
  outDtype: maybe(fc.constantFrom(...DTYPES)),
  kvLayout: fc.constantFrom("NHD" as const, "HND" as const),
  qoLens: lengths(70),
  kvLens: lengths(100),
  options: OPTIONS,
  qScale: perHead(0.1, 2),
  kScale: perHead(0.1, 2),
  vScale: perHead(-4, 4),
  sinks: perHead(-20, 20),
  seed: fc.integer({ min: 1, max: 1000 }),
}).map(({ group, numKvHeads, eighths, eighthsV, qoLens, kvLens, options, ...spec }) => {
  const heads = [group * numKvHeads, numKvHeads] as const;
  const atMost = (list: readonly number[] | undefined, most: number) =>
    list?.slice(0, spec.batch).map((length) => Math.min(length, most));
  return {
    ...spec,
    ...options,
    heads,
    headDim: eighths * 8,
    headDimV: eighthsV && eighthsV * 8,
    qoLens: atMost(qoLens, spec.qoLen),
    seqLens: atMost(kvLens, spec.kvLen),
    qScale: spec.qScale?.slice(0, heads[0]),
    kScale: spec.kScale?.slice(0, heads[1]),
    vScale: spec.vScale?.slice(0, heads[1]),
    sinks: spec.sinks?.slice(0, heads[0]),
  };
});

onEachBackend("prefill: random calls pass the gate", async (device, name) => {
  const numRuns = RUNS ? Number(RUNS) : DEFAULT_RUNS[name === "wasm" ? "wasm" : "gpu"];
  console.log(`${name}: ${numRuns} random prefills, KVASIR_PROPERTY_SEED=${SEED}`);
  const passes = fc.asyncProperty(SPECS, fc.boolean(), async (spec, isRagged) => {
    const label = `${isRagged ? "ragged: " : ""}${describePrefill(spec)}`;
    const run = isRagged ? runRagged : runPrefill;
    await checkPrefill(device, label, makePrefill(spec), undefined, run);
  });
  await fc.assert(passes, { numRuns, seed: SEED });
});
