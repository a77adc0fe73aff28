/**
 * The study: which caches are measured on which data, and what comes out.
 *
 * @module
 */

import {
  calibrate,
  decodeFp8,
  type Device,
  encodeFp8,
  type Fp8DType,
  openDevice,
} from "@kvasir/attention";
import { BETWEEN_CODES, type Cache, CACHES } from "./caches.ts";
import { heavyTails, type Kind, makeInputs, normals, type Sizes } from "./inputs.ts";
import { measure } from "./measure.ts";
import { type Preparation, prepare } from "./prepare.ts";
import { type Errors, reference, together } from "./reference.ts";

/** How large the study is. */
export interface StudySizes {
  /** Of all but the lengths. */
  readonly sizes: Sizes;
  readonly lengths: readonly number[];
  /** Draws of the data, whose errors are taken together. */
  readonly trials: number;
  /** Values that scales are tried on. */
  readonly values: number;
}

/** What docs/fp8.md shows. */
export const FULL: StudySizes = {
  sizes: { length: 4096, numKvHeads: 8, numQoHeads: 32, headDim: 128 },
  lengths: [1024, 8192, 32768, 131072],
  trials: 4,
  values: 1 << 20,
};
/** A second's worth. */
export const QUICK: StudySizes = {
  sizes: { length: 256, numKvHeads: 2, numQoHeads: 4, headDim: 64 },
  lengths: [128, 512],
  trials: 1,
  values: 1 << 14,
};

/** A measurement of the main tables. */
export interface KindResult extends Errors {
  readonly kind: Kind;
  readonly cache: Cache;
}

/** A measurement of long contexts. */
export interface LengthResult extends Errors {
  readonly length: number;
  readonly cache: Cache;
}

/** A measurement of e4m3 with q and k prepared. */
export interface PreparedResult extends Errors {
  readonly kind: Kind;
  readonly preparation: Preparation;
}

/** A scale tried on plain values. */
export interface ScaleResult {
  readonly data: "normal" | "heavy tails";
  readonly dtype: Fp8DType;
  /** Binary logarithm of the scale over that which puts the largest value on the largest code. */
  readonly margin: number;
  readonly sqnr: number;
}

/** A percentile tried on plain values. */
export interface PercentileResult {
  readonly data: "normal" | "heavy tails";
  readonly dtype: Fp8DType;
  readonly percentile: number;
  readonly sqnr: number;
  readonly clipped: number;
}

/** All of it. */
export interface StudyResult {
  readonly kinds: readonly KindResult[];
  readonly lengths: readonly LengthResult[];
  readonly prepared: readonly PreparedResult[];
  readonly scales: readonly ScaleResult[];
  readonly percentiles: readonly PercentileResult[];
}

const KINDS: readonly Kind[] = [
  "normal",
  "heavy tails",
  "unequal heads",
  "outliers",
  "offsets",
];
const PREPARED_KINDS: readonly Kind[] = [
  "normal",
  "outliers",
  "outliers, any q",
  "outliers, q alike",
  "offsets",
  "spikes",
];
const PREPARATIONS: readonly Preparation[] = ["as they are", "rotated", "mean taken off"];
/** Scales of a tensor and of its one head are the same there. */
const LONG_CACHES = CACHES.filter(({ dtype, scale }) =>
  dtype === "float16" || dtype === "bfloat16" || scale === "head" || scale === "token"
);
const FP8: readonly Fp8DType[] = ["float8_e4m3fn", "float8_e5m2"];
const PERCENTILES: readonly number[] = [99, 99.9, 99.99, 100];
const SEED = 20261125;

/** Measures everything. */
export async function runStudy(
  { sizes, lengths, values, trials }: StudySizes,
  say: (line: string) => void = () => {},
): Promise<StudyResult> {
  using device = await openDevice({ backend: "wasm" });
  const seeds = Array.from({ length: trials }, (_, i) => SEED + 1000 * i);
  const kinds: KindResult[] = [];
  for (const kind of KINDS) {
    say(kind);
    const caches = [...CACHES, ...BETWEEN_CODES];
    const ways = caches.map((cache) => ({ cache, preparation: "as they are" as const }));
    const errors = await trialsOf(device, kind, sizes, ways, seeds);
    caches.forEach((cache, i) => kinds.push({ kind, cache, ...errors[i] }));
  }
  const prepared: PreparedResult[] = [];
  for (const kind of PREPARED_KINDS) {
    say(`${kind}, prepared`);
    const cache: Cache = { dtype: "float8_e4m3fn", scale: "head" };
    const ways = PREPARATIONS.map((preparation) => ({ cache, preparation }));
    const errors = await trialsOf(device, kind, sizes, ways, seeds);
    PREPARATIONS.forEach((preparation, i) => prepared.push({ kind, preparation, ...errors[i] }));
  }
  const long: LengthResult[] = [];
  for (const length of lengths) {
    say(`${length} keys`);
    // One KV head, so that the longest context takes seconds.
    const one = { length, numKvHeads: 1, numQoHeads: 4, headDim: sizes.headDim };
    const ways = LONG_CACHES.map((cache) => ({ cache, preparation: "as they are" as const }));
    const errors = await trialsOf(device, "normal", one, ways, seeds);
    LONG_CACHES.forEach((cache, i) => long.push({ length, cache, ...errors[i] }));
  }
  return { kinds, prepared, lengths: long, ...await measureScales(values, say) };
}

/** The errors of several ways on one kind of data, over all seeds. */
async function trialsOf(
  device: Device,
  kind: Kind,
  sizes: Sizes,
  ways: readonly { readonly cache: Cache; readonly preparation: Preparation }[],
  seeds: readonly number[],
): Promise<Errors[]> {
  const trials: Errors[][] = ways.map(() => []);
  for (const seed of seeds) {
    const inputs = makeInputs(kind, sizes, seed);
    const exact = reference(inputs);
    for (const [i, { cache, preparation }] of ways.entries()) {
      const pair = prepare(inputs, preparation, seed + 1);
      trials[i].push(await measure(device, inputs, exact, cache, pair));
    }
  }
  return trials.map(together);
}

async function measureScales(
  count: number,
  say: (line: string) => void,
): Promise<Pick<StudyResult, "scales" | "percentiles">> {
  const scales: ScaleResult[] = [];
  const percentiles: PercentileResult[] = [];
  for (const data of ["normal", "heavy tails"] as const) {
    say(`scales, ${data}`);
    const values = (data === "normal" ? normals : heavyTails)(count, SEED);
    for (const dtype of FP8) {
      for (const percentile of PERCENTILES) {
        const { report: [{ sqnr, clipped }] } = await calibrate(values, { dtype, percentile });
        percentiles.push({ data, dtype, percentile, sqnr, clipped });
      }
      const { scale } = await calibrate(values, { dtype });
      for (let margin = -6; margin <= 24; margin++) {
        scales.push({ data, dtype, margin, sqnr: sqnrOf(values, dtype, scale * 2 ** margin) });
      }
    }
  }
  return { scales, percentiles };
}

/** Signal to noise of quantizing values, in dB. */
function sqnrOf(values: Float32Array<ArrayBuffer>, dtype: Fp8DType, scale: number): number {
  const codes = encodeFp8(values.map((x) => x / scale), dtype);
  let [signal, noise] = [0, 0];
  decodeFp8(codes, dtype).forEach((x, i) => {
    signal += values[i] ** 2;
    noise += (values[i] - x * scale) ** 2;
  });
  return 10 * Math.log10(signal / noise);
}
