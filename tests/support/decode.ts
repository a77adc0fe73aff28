/**
 * Decode calls as data: what to draw, what to ask, and the check against the oracle.
 *
 * Tokens behind a request's length are always NaN, so that every case with lengths is also a test
 * that unused slots are never read.
 *
 * @module
 */

import {
  batchDecodeWithPaddedKvCache,
  type Device,
  type DType,
  type LseBase,
  type PosEncodingMode,
  singleDecodeWithKvCache,
} from "@kvasir/attention";
import { type BackendName, onEachBackend } from "./device.ts";
import { checkAnswer, type Expected, expectedOf } from "./gate.ts";
import { type AttentionCase, cacheRow } from "./oracle.ts";
import { fillWithNan, store, type Stored } from "./storage.ts";
import { normals } from "./values.ts";

/** A decode call; what is left out has the default that is noted. */
export interface DecodeSpec {
  /** Requests; 1. */
  readonly batch?: number;
  /** Tokens of the cache. */
  readonly kvLen: number;
  readonly heads: readonly [numQoHeads: number, numKvHeads: number];
  readonly headDim: number;
  /** float32. */
  readonly qDtype?: DType;
  /** float32. */
  readonly kvDtype?: DType;
  /** NHD. */
  readonly kvLayout?: "NHD" | "HND";
  readonly seqLens?: readonly number[];
  readonly smScale?: number;
  readonly qScale?: number | readonly number[];
  readonly kScale?: number | readonly number[];
  readonly vScale?: number | readonly number[];
  readonly windowLeft?: number;
  readonly logitsSoftCap?: number;
  readonly sinks?: readonly number[];
  readonly posEncodingMode?: PosEncodingMode;
  readonly ropeScale?: number;
  readonly ropeTheta?: number;
  readonly lseBase?: LseBase;
  /** q's dtype, or float16 for a q in FP8. */
  readonly outDtype?: DType;
  /** Of the drawn values; 1. */
  readonly seed?: number;
  /** Multiplies the drawn q and k; 1. */
  readonly magnitude?: number;
}

/** The inputs of a call: stored for the library, decoded for the oracle. */
export interface DecodeInputs {
  readonly q: Stored;
  readonly k: Stored;
  readonly v: Stored;
  readonly problem: AttentionCase;
  readonly outDtype?: DType;
}

/** What the library answered, widened to float32. */
export interface DecodeAnswer {
  readonly out: Float32Array;
  readonly lse: Float32Array;
}

/** The case's sizes without its values, as the oracle knows them. */
export type DecodeShape = Omit<AttentionCase, "q" | "k" | "v">;

/** Numbers for q, k and v before they are rounded to their dtypes. */
export interface DecodeValues {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** The oracle's names for a spec's sizes. */
export function shapeOf(spec: DecodeSpec): DecodeShape {
  return {
    numRequests: spec.batch ?? 1,
    numQoHeads: spec.heads[0],
    numKvHeads: spec.heads[1],
    headDim: spec.headDim,
    maxKvLen: spec.kvLen,
    kvLens: spec.seqLens,
    kvLayout: spec.kvLayout ?? "NHD",
    smScale: spec.smScale,
    qScale: spec.qScale,
    kScale: spec.kScale,
    vScale: spec.vScale,
    windowLeft: spec.windowLeft,
    logitsSoftCap: spec.logitsSoftCap,
    sinks: spec.sinks,
    rope: spec.posEncodingMode === "ROPE_LLAMA"
      ? { scale: spec.ropeScale ?? 1, theta: spec.ropeTheta ?? 1e4 }
      : undefined,
    alibi: spec.posEncodingMode === "ALIBI",
    lseScale: spec.lseBase === "ln" ? Math.LN2 : 1,
  };
}

/** The options of the calls for a case. */
function optionsOf(p: AttentionCase, outDtype: DType | undefined) {
  return {
    kvLayout: p.kvLayout,
    posEncodingMode: p.rope ? "ROPE_LLAMA" : p.alibi ? "ALIBI" : "NONE",
    ropeScale: p.rope?.scale,
    ropeTheta: p.rope?.theta,
    smScale: p.smScale,
    qScale: p.qScale,
    kScale: p.kScale,
    vScale: p.vScale,
    windowLeft: p.windowLeft,
    logitsSoftCap: p.logitsSoftCap,
    sinks: p.sinks,
    outDtype,
    lseBase: (p.lseScale ?? 1) === 1 ? "log2" : "ln",
    returnLse: true,
  } as const;
}

/** Normal values for a spec. */
export function drawValues(spec: DecodeSpec): DecodeValues {
  const { batch = 1, kvLen, heads, headDim, seed = 1, magnitude = 1 } = spec;
  const cacheSize = batch * kvLen * heads[1] * headDim;
  const scaled = (values: Float32Array) =>
    magnitude === 1 ? values : values.map((x) => x * magnitude);
  return {
    q: scaled(normals(batch * heads[0] * headDim, 3 * seed)),
    k: scaled(normals(cacheSize, 3 * seed + 1)),
    v: normals(cacheSize, 3 * seed + 2),
  };
}

/** Stores the values in the spec's dtypes, with NaN behind each request's length. */
export function makeInputs(
  spec: DecodeSpec,
  values: DecodeValues = drawValues(spec),
): DecodeInputs {
  const shape = shapeOf(spec);
  const kvDtype = spec.kvDtype ?? "float32";
  const q = store(values.q, spec.qDtype ?? "float32");
  const k = store(values.k, kvDtype);
  const v = store(values.v, kvDtype);
  spec.seqLens?.forEach((length, request) => {
    for (let token = length; token < spec.kvLen; token++) {
      for (let head = 0; head < shape.numKvHeads; head++) {
        const row = cacheRow(shape, request, token, head);
        fillWithNan(k, row, row + spec.headDim);
        fillWithNan(v, row, row + spec.headDim);
      }
    }
  });
  const problem = { ...shape, q: q.values, k: k.values, v: v.values };
  return { q, k, v, problem, outDtype: spec.outDtype };
}

/** Runs the batched call on a device, and frees what it made. */
export async function runDecode(device: Device, inputs: DecodeInputs): Promise<DecodeAnswer> {
  const { q, k, v, problem: p } = inputs;
  const cacheShape = p.kvLayout === "NHD"
    ? [p.numRequests, p.maxKvLen, p.numKvHeads, p.headDim]
    : [p.numRequests, p.numKvHeads, p.maxKvLen, p.headDim];
  using qTensor = device.tensorFromBytes(
    q.bytes,
    [p.numRequests, p.numQoHeads, p.headDim],
    q.dtype,
  );
  using kTensor = device.tensorFromBytes(k.bytes, cacheShape, k.dtype);
  using vTensor = device.tensorFromBytes(v.bytes, cacheShape, v.dtype);
  const result = await batchDecodeWithPaddedKvCache(qTensor, kTensor, vTensor, {
    ...optionsOf(p, inputs.outDtype),
    seqLens: p.kvLens,
  });
  using out = result.out;
  using lse = result.lse;
  return { out: await out.read(), lse: await lse.read() };
}

/** Runs a batch of one by the call that has no batch. */
export async function runSingleDecode(device: Device, inputs: DecodeInputs): Promise<DecodeAnswer> {
  const { q, k, v, problem: p } = inputs;
  const cacheShape = p.kvLayout === "NHD"
    ? [p.maxKvLen, p.numKvHeads, p.headDim]
    : [p.numKvHeads, p.maxKvLen, p.headDim];
  using qTensor = device.tensorFromBytes(q.bytes, [p.numQoHeads, p.headDim], q.dtype);
  using kTensor = device.tensorFromBytes(k.bytes, cacheShape, k.dtype);
  using vTensor = device.tensorFromBytes(v.bytes, cacheShape, v.dtype);
  const options = optionsOf(p, inputs.outDtype);
  const result = await singleDecodeWithKvCache(qTensor, kTensor, vTensor, options);
  using out = result.out;
  using lse = result.lse;
  return { out: await out.read(), lse: await lse.read() };
}

/** A spec in a few words, for the names of tests and failures. */
export function describe(spec: DecodeSpec): string {
  const { batch = 1, kvLen, heads, headDim, qDtype, kvDtype, kvLayout = "NHD" } = spec;
  const shown = [
    ...["smScale", "qScale", "kScale", "vScale", "windowLeft", "logitsSoftCap", "sinks"] as const,
    ...["posEncodingMode", "ropeScale", "ropeTheta", "lseBase", "outDtype"] as const,
    ...["magnitude", "seed"] as const,
  ];
  const options = shown.filter((name) => spec[name] !== undefined)
    .map((name) => `${name} ${spec[name]}`);
  return [
    `q ${qDtype ?? "float32"}, kv ${kvDtype ?? "float32"}`,
    `${heads[0]}/${heads[1]} heads, D ${headDim}, B ${batch}, L ${kvLen}, ${kvLayout}`,
    ...(spec.seqLens ? [`seqLens [${spec.seqLens.join(", ")}]`] : []),
    ...options,
  ].join("; ");
}

/** The dtype of the output. */
export function outDtypeOf({ q, outDtype }: DecodeInputs): DType {
  return outDtype ?? (q.dtype.startsWith("float8") ? "float16" : q.dtype);
}

/** Runs a call and passes it through the gate. */
export async function checkDecode(
  device: Device,
  label: string,
  inputs: DecodeInputs,
  expected: Expected = expectedOf(inputs.problem),
): Promise<DecodeAnswer> {
  const answer = await runDecode(device, inputs);
  checkAnswer(label, answer, expected, inputs.problem, outDtypeOf(inputs));
  return answer;
}

/** Registers one test a backend (of `only`) that passes every spec through the gate. */
export function decodeTest(
  title: string,
  specs: readonly DecodeSpec[],
  only?: readonly BackendName[],
): void {
  // The oracle's answers are the same on every backend; the first one that needs them pays.
  const cases = specs.map((spec) => {
    let made: { inputs: DecodeInputs; expected: Expected } | undefined;
    return {
      label: describe(spec),
      make: () => {
        if (!made) {
          const inputs = makeInputs(spec);
          made = { inputs, expected: expectedOf(inputs.problem) };
        }
        return made;
      },
    };
  });
  onEachBackend(title, async (device) => {
    for (const { label, make } of cases) {
      const { inputs, expected } = make();
      await checkDecode(device, label, inputs, expected);
    }
  }, only);
}
