/**
 * Prefill calls as data: what to draw, what to ask, and the check against the oracle. Inputs are
 * padded; ragged.ts makes ragged calls of them.
 *
 * Queries and tokens behind a request's lengths are always NaN, so that every case with lengths is
 * also a test that unused slots are never read.
 *
 * @module
 */

import {
  batchPrefillWithPaddedKvCache,
  type Device,
  type DType,
  type MaskOptions,
  singlePrefillWithKvCache,
} from "@kvasir/attention";
import { type DecodeAnswer, type DecodeSpec, optionsOf, outDtypeOf, shapeOf } from "./decode.ts";
import { type BackendName, onEachBackend } from "./device.ts";
import { checkAnswer, type Expected, expectedOf } from "./gate.ts";
import { type AttentionCase, cacheRow, OPTION_NAMES } from "./oracle.ts";
import { fillWithNan, store, type Stored } from "./storage.ts";
import { paddedScales } from "./token_scales.ts";
import { normals, uniform } from "./values.ts";

/** A prefill call with its options; what is left out has the default that is noted. */
export interface PrefillSpec extends DecodeSpec {
  /** Query tokens of each request. */
  readonly qoLen: number;
  readonly qoLens?: readonly number[];
  /** headDim. */
  readonly headDimV?: number;
  /** False. */
  readonly causal?: boolean;
  /** How many of the keys a random mask shows, from 0 to 1; no mask. */
  readonly maskDensity?: number;
}

/** The inputs of a call: stored for the library, decoded for the oracle. */
export interface PrefillInputs {
  readonly q: Stored;
  readonly k: Stored;
  readonly v: Stored;
  readonly problem: AttentionCase;
  readonly outDtype: DType;
}

/** In which form a mask is given. */
export type MaskForm = "booleans" | "numbers" | "packed";

/** Numbers for q, k and v before they are rounded to their dtypes. */
export interface PrefillValues {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** Normal values for a spec. */
export function drawPrefill(spec: PrefillSpec): PrefillValues {
  const { batch = 1, qoLen, kvLen, heads, headDim, headDimV = headDim, seed = 1 } = spec;
  const { magnitude = 1 } = spec;
  const scaled = (values: Float32Array) =>
    magnitude === 1 ? values : values.map((x) => x * magnitude);
  return {
    q: scaled(normals(batch * qoLen * heads[0] * headDim, 3 * seed)),
    k: scaled(normals(batch * kvLen * heads[1] * headDim, 3 * seed + 1)),
    v: normals(batch * kvLen * heads[1] * headDimV, 3 * seed + 2),
  };
}

/** The random mask of a spec, [batch, qoLen, kvLen]. */
export function drawMask(
  { batch = 1, qoLen, kvLen, maskDensity, seed = 1 }: PrefillSpec,
): boolean[] | undefined {
  if (maskDensity === undefined) return undefined;
  const next = uniform(1000 + seed);
  return Array.from({ length: batch * qoLen * kvLen }, () => next() < maskDensity);
}

/** Stores the values in the spec's dtypes, with NaN behind each request's lengths. */
export function makePrefill(
  spec: PrefillSpec,
  values: PrefillValues = drawPrefill(spec),
  mask: readonly boolean[] | undefined = drawMask(spec),
): PrefillInputs {
  const { batch = 1, qoLen, qoLens, headDim, headDimV = headDim, causal } = spec;
  const shape = { ...shapeOf(spec), numQueries: qoLen, qoLens, headDimV, causal, mask };
  const kvDtype = spec.kvDtype ?? "float32";
  const q = store(values.q, spec.qDtype ?? "float32");
  const k = store(values.k, kvDtype);
  const v = store(values.v, spec.vDtype ?? kvDtype);
  const rowSize = shape.numQoHeads * headDim;
  for (let request = 0; request < batch; request++) {
    const end = (request + 1) * qoLen * rowSize;
    fillWithNan(q, end - (qoLen - (qoLens?.[request] ?? qoLen)) * rowSize, end);
    for (let token = spec.seqLens?.[request] ?? spec.kvLen; token < spec.kvLen; token++) {
      for (let head = 0; head < shape.numKvHeads; head++) {
        for (const [stored, dim] of [[k, headDim], [v, headDimV]] as const) {
          const row = cacheRow(shape, request, token, head, dim);
          fillWithNan(stored, row, row + dim);
        }
      }
    }
  }
  const problem = { ...shape, q: q.values, k: k.values, v: v.values };
  return { q, k, v, problem, outDtype: outDtypeOf(spec) };
}

/** Bits in little order, as `numpy.packbits` gives them for each request alone. */
export function packBits(mask: readonly boolean[]): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(mask.length / 8));
  mask.forEach((bit, i) => bytes[i >> 3] |= Number(bit) << (i & 7));
  return bytes;
}

/** The masks of requests as the library's options, each request's packed by itself. */
export function maskOptions(
  masks: readonly (readonly boolean[])[] | null,
  form: MaskForm,
): MaskOptions {
  if (masks === null) return {};
  if (form === "packed") {
    return { packedCustomMask: Uint8Array.from(masks.flatMap((mask) => [...packBits(mask)])) };
  }
  const all = masks.flat();
  return { customMask: form === "numbers" ? Uint8Array.from(all, Number) : all };
}

/** The mask of each request, whole. */
export function masksOf(
  { mask, numRequests, numQueries = 1, maxKvLen }: AttentionCase,
): boolean[][] | null {
  if (!mask) return null;
  const all = Array.from(mask);
  const size = numQueries * maxKvLen;
  return Array.from({ length: numRequests }, (_, i) => all.slice(i * size, (i + 1) * size));
}

/** The shapes of k and v: [...outer, length and heads in their order, dim]. */
export function cacheShapes(
  p: AttentionCase,
  outer: readonly number[],
  length: number,
): [k: number[], v: number[]] {
  const inner = p.kvLayout === "NHD" ? [length, p.numKvHeads] : [p.numKvHeads, length];
  return [[...outer, ...inner, p.headDim], [...outer, ...inner, p.headDimV ?? p.headDim]];
}

/** Runs the batched call on a device, and frees what it made. */
export async function runPrefill(
  device: Device,
  { q, k, v, problem: p, outDtype }: PrefillInputs,
  form: MaskForm = "booleans",
): Promise<DecodeAnswer> {
  const batch = p.numRequests;
  const qShape = [batch, p.numQueries ?? 1, p.numQoHeads, p.headDim];
  const [kShape, vShape] = cacheShapes(p, [batch], p.maxKvLen);
  using qTensor = device.tensorFromBytes(q.bytes, qShape, q.dtype);
  using kTensor = device.tensorFromBytes(k.bytes, kShape, k.dtype);
  using vTensor = device.tensorFromBytes(v.bytes, vShape, v.dtype);
  const scales = paddedScales(device, p);
  using _ = scales.kvScales;
  const result = await batchPrefillWithPaddedKvCache(qTensor, kTensor, vTensor, {
    ...optionsOf(p),
    ...scales,
    ...maskOptions(masksOf(p), form),
    causal: p.causal,
    kvLayout: p.kvLayout,
    qoLens: p.qoLens,
    seqLens: p.kvLens,
    outDtype,
    returnLse: true,
  });
  using out = result.out;
  using lse = result.lse;
  return { out: await out.read(), lse: await lse.read() };
}

/** Runs a batch of one, whose lengths are left out, by the call that has no batch. */
export async function runSinglePrefill(
  device: Device,
  { q, k, v, problem: p, outDtype }: PrefillInputs,
  form: MaskForm = "booleans",
): Promise<DecodeAnswer> {
  const [kShape, vShape] = cacheShapes(p, [], p.maxKvLen);
  const qShape = [p.numQueries ?? 1, p.numQoHeads, p.headDim];
  using qTensor = device.tensorFromBytes(q.bytes, qShape, q.dtype);
  using kTensor = device.tensorFromBytes(k.bytes, kShape, k.dtype);
  using vTensor = device.tensorFromBytes(v.bytes, vShape, v.dtype);
  const scales = paddedScales(device, p, true);
  using _ = scales.kvScales;
  const result = await singlePrefillWithKvCache(qTensor, kTensor, vTensor, {
    ...optionsOf(p),
    ...scales,
    ...maskOptions(masksOf(p), form),
    causal: p.causal,
    kvLayout: p.kvLayout,
    outDtype,
    returnLse: true,
  });
  using out = result.out;
  using lse = result.lse;
  return { out: await out.read(), lse: await lse.read() };
}

/** A spec in a few words, for the names of failures. */
export function describePrefill(spec: PrefillSpec): string {
  const { batch = 1, qoLen, kvLen, heads, headDim, headDimV, kvLayout = "NHD" } = spec;
  const options = [
    ...OPTION_NAMES,
    "tokenScales",
    "causal",
    "maskDensity",
    "outDtype",
    "magnitude",
    "seed",
  ] as const;
  const given = options
    .filter((name) => spec[name] !== undefined)
    .map((name) => `${name} ${spec[name]}`);
  return [
    `q ${spec.qDtype ?? "float32"}, kv ${spec.kvDtype ?? "float32"}${
      spec.vDtype ? `, v ${spec.vDtype}` : ""
    }`,
    `${heads[0]}/${heads[1]} heads, D ${headDim}${headDimV === undefined ? "" : `/${headDimV}`}`,
    `B ${batch}, N ${qoLen}, L ${kvLen}, ${kvLayout}`,
    ...(spec.qoLens ? [`qoLens [${spec.qoLens.join(", ")}]`] : []),
    ...(spec.seqLens ? [`seqLens [${spec.seqLens.join(", ")}]`] : []),
    ...given,
  ].join("; ");
}

/** How a spec is run. */
export type PrefillRun = typeof runPrefill;

/** Runs a call and passes it through the gate. */
export async function checkPrefill(
  device: Device,
  label: string,
  inputs: PrefillInputs,
  expected: Expected = expectedOf(inputs.problem),
  run: PrefillRun = runPrefill,
): Promise<DecodeAnswer> {
  const answer = await run(device, inputs);
  checkAnswer(label, answer, expected, inputs.problem, inputs.outDtype);
  return answer;
}

/** Registers one test a backend (of `only`) that passes every spec through the gate. */
export function prefillTest(
  title: string,
  specs: readonly PrefillSpec[],
  { only, run = runPrefill }: { only?: readonly BackendName[]; run?: PrefillRun } = {},
): void {
  // The oracle's answers are the same on every backend; the first one that needs them pays.
  const cases = specs.map((spec) => {
    let made: { inputs: PrefillInputs; expected: Expected } | undefined;
    return {
      label: describePrefill(spec),
      make: () => {
        if (!made) {
          const inputs = makePrefill(spec);
          made = { inputs, expected: expectedOf(inputs.problem) };
        }
        return made;
      },
    };
  });
  onEachBackend(title, async (device) => {
    for (const { label, make } of cases) {
      const { inputs, expected } = make();
      await checkPrefill(device, label, inputs, expected, run);
    }
  }, only);
}
