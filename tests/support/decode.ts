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
  singleDecodeWithKvCache,
} from "@kvasir/attention";
import { type BackendName, onEachBackend } from "./device.ts";
import { checkAnswer, type Expected, expectedOf } from "./gate.ts";
import { isFp8 } from "./formats.ts";
import { type AttentionCase, type AttentionOptions, cacheRow, OPTION_NAMES } from "./oracle.ts";
import { fillWithNan, store, type Stored } from "./storage.ts";
import { drawTokenScales, paddedScales } from "./token_scales.ts";
import { normals } from "./values.ts";

/** A decode call with its options; what is left out has the default that is noted. */
export interface DecodeSpec extends AttentionOptions {
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
  /** Of v, if it is not k's. */
  readonly vDtype?: DType;
  /** NHD. */
  readonly kvLayout?: "NHD" | "HND";
  readonly seqLens?: readonly number[];
  /** Whether each token and KV head has scales; false. */
  readonly tokenScales?: boolean;
  /** q's, or float16 for an FP8 q. */
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
  /** What the output has by default, or is asked to have. */
  readonly outDtype: DType;
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
  const shape: DecodeShape = {
    numRequests: spec.batch ?? 1,
    numQoHeads: spec.heads[0],
    numKvHeads: spec.heads[1],
    headDim: spec.headDim,
    maxKvLen: spec.kvLen,
    kvLens: spec.seqLens,
    kvLayout: spec.kvLayout ?? "NHD",
    ...optionsOf(spec),
  };
  return spec.tokenScales ? { ...shape, kvScales: drawTokenScales(shape, spec.seed ?? 1) } : shape;
}

/** The options of a spec or a case that are given. */
export function optionsOf(from: AttentionOptions): AttentionOptions {
  const given = OPTION_NAMES.filter((name) => from[name] !== undefined);
  return Object.fromEntries(given.map((name) => [name, from[name]]));
}

/** The dtype that a call's output must have. */
export function outDtypeOf({ qDtype = "float32", outDtype }: DecodeSpec): DType {
  return outDtype ?? (isFp8(qDtype) ? "float16" : qDtype);
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
  const v = store(values.v, spec.vDtype ?? kvDtype);
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
  return { q, k, v, problem, outDtype: outDtypeOf(spec) };
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
  const scales = paddedScales(device, p);
  using _ = scales.kvScales;
  const result = await batchDecodeWithPaddedKvCache(qTensor, kTensor, vTensor, {
    ...optionsOf(p),
    ...scales,
    kvLayout: p.kvLayout,
    seqLens: p.kvLens,
    outDtype: inputs.outDtype,
    returnLse: true,
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
  const scales = paddedScales(device, p, true);
  using _ = scales.kvScales;
  const result = await singleDecodeWithKvCache(qTensor, kTensor, vTensor, {
    ...optionsOf(p),
    ...scales,
    kvLayout: p.kvLayout,
    outDtype: inputs.outDtype,
    returnLse: true,
  });
  using out = result.out;
  using lse = result.lse;
  return { out: await out.read(), lse: await lse.read() };
}

/** A spec in a few words, for the names of tests and failures. */
export function describe(spec: DecodeSpec): string {
  const { batch = 1, kvLen, heads, headDim, qDtype, kvDtype, vDtype, kvLayout = "NHD" } = spec;
  const options = [...OPTION_NAMES, "tokenScales", "outDtype", "magnitude", "seed"] as const;
  const given = options
    .filter((name) => spec[name] !== undefined)
    .map((name) => `${name} ${spec[name]}`);
  return [
    `q ${qDtype ?? "float32"}, kv ${kvDtype ?? "float32"}${vDtype ? `, v ${vDtype}` : ""}`,
    `${heads[0]}/${heads[1]} heads, D ${headDim}, B ${batch}, L ${kvLen}, ${kvLayout}`,
    ...(spec.seqLens ? [`seqLens [${spec.seqLens.join(", ")}]`] : []),
    ...given,
  ].join("; ");
}

/** Runs a call and passes it through the gate. */
export async function checkDecode(
  device: Device,
  label: string,
  inputs: DecodeInputs,
  expected: Expected = expectedOf(inputs.problem),
): Promise<DecodeAnswer> {
  const answer = await runDecode(device, inputs);
  checkAnswer(label, answer, expected, inputs.problem, inputs.outDtype);
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
