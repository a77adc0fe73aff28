/**
 * Ragged calls, made of the rows of padded inputs; their answers are padded again.
 *
 * @module
 */

import { BatchPrefillWithRaggedKvCache, type Device } from "@kvasir/attention";
import { type DecodeAnswer, optionsOf } from "./decode.ts";
import { type AttentionCase, cacheRow } from "./oracle.ts";
import { cacheShapes, type MaskForm, maskOptions, masksOf, type PrefillInputs } from "./prefill.ts";
import type { Stored } from "./storage.ts";
import { movedScales } from "./token_scales.ts";

/** The lengths of a case's requests. */
export function lengthsOf(
  p: AttentionCase,
): { qoLens: readonly number[]; kvLens: readonly number[] } {
  const all = (length: number) => new Array<number>(p.numRequests).fill(length);
  return { qoLens: p.qoLens ?? all(p.numQueries ?? 1), kvLens: p.kvLens ?? all(p.maxKvLen) };
}

/** Where each length begins in their sum, and the sum. */
export function indptrOf(lengths: readonly number[]): number[] {
  let sum = 0;
  return [0, ...lengths.map((length) => sum += length)];
}

/** Copies rows of `size` elements: `sources` are the rows to take. */
export function gatherRows(stored: Stored, sources: readonly number[], size: number): Uint8Array {
  const bytes = size * stored.bytes.length / stored.values.length;
  const gathered = new Uint8Array(sources.length * bytes);
  sources.forEach((source, row) =>
    gathered.set(stored.bytes.subarray(source * bytes, (source + 1) * bytes), row * bytes)
  );
  return gathered;
}

/** The rows of a padded tensor that its lengths leave. */
export function rowsInUse(lengths: readonly number[], room: number): number[] {
  return lengths.flatMap((length, request) => Array.from({ length }, (_, i) => request * room + i));
}

/** The rows of k or v, each of one head, in the order of the ragged tensor. */
function cacheRowsInUse(p: AttentionCase, kvLens: readonly number[]): number[] {
  const heads = Array.from({ length: p.numKvHeads }, (_, head) => head);
  const tokens = kvLens.flatMap((length, request) =>
    Array.from({ length }, (_, token) => [request, token] as const)
  );
  const rowAt = (request: number, token: number, head: number) =>
    cacheRow(p, request, token, head, 1);
  return p.kvLayout === "NHD"
    ? tokens.flatMap(([request, token]) => heads.map((head) => rowAt(request, token, head)))
    : heads.flatMap((head) => tokens.map(([request, token]) => rowAt(request, token, head)));
}

/** Plans and runs the ragged call over the rows in use; the answer is padded again. */
export async function runRagged(
  device: Device,
  { q, k, v, problem: p, outDtype }: PrefillInputs,
  form: MaskForm = "booleans",
): Promise<DecodeAnswer> {
  const { numQueries = 1, headDim, headDimV = headDim, numQoHeads } = p;
  const { qoLens, kvLens } = lengthsOf(p);
  const [qoIndptr, kvIndptr] = [indptrOf(qoLens), indptrOf(kvLens)];
  const [qoRows, kvRows] = [qoIndptr[qoIndptr.length - 1], kvIndptr[kvIndptr.length - 1]];
  using prefill = new BatchPrefillWithRaggedKvCache(device, { kvLayout: p.kvLayout });
  prefill.plan({
    ...optionsOf(p),
    ...maskOptions(masksInUse(p), form),
    causal: p.causal,
    qoIndptr,
    kvIndptr,
    numQoHeads,
    numKvHeads: p.numKvHeads,
    headDim,
    headDimV,
    qDtype: q.dtype,
    kvDtype: { k: k.dtype, v: v.dtype },
    outDtype,
    kvScales: p.kvScales ? "token" : "none",
  });
  using kvScales = p.kvScales && device.tensor(
    movedScales(
      p,
      kvLens,
      p.numKvHeads * kvRows,
      (request, head, token) => head * kvRows + kvIndptr[request] + token,
    ),
    [p.numKvHeads, kvRows, 2],
    "float32",
  );
  const queries = rowsInUse(qoLens, numQueries);
  const cacheRows = cacheRowsInUse(p, kvLens);
  const [kShape, vShape] = cacheShapes(p, [], kvRows);
  using qTensor = device.tensorFromBytes(
    gatherRows(q, queries, numQoHeads * headDim),
    [qoRows, numQoHeads, headDim],
    q.dtype,
  );
  using kTensor = device.tensorFromBytes(gatherRows(k, cacheRows, headDim), kShape, k.dtype);
  using vTensor = device.tensorFromBytes(gatherRows(v, cacheRows, headDimV), vShape, v.dtype);
  const result = await prefill.run(qTensor, kTensor, vTensor, { returnLse: true, kvScales });
  using outTensor = result.out;
  using lseTensor = result.lse;
  return padRows(p, queries, await outTensor.read(), await lseTensor.read());
}

/** The masks of a case without what lies behind its lengths. */
export function masksInUse(p: AttentionCase): readonly boolean[][] | null {
  const { qoLens, kvLens } = lengthsOf(p);
  return masksOf(p)?.map((mask, request) =>
    Array.from(
      { length: qoLens[request] },
      (_, i) => mask.slice(i * p.maxKvLen, i * p.maxKvLen + kvLens[request]),
    ).flat()
  ) ?? null;
}

/** Rows of results at the places that they have in a padded answer. */
export function padRows(
  { numRequests, numQueries = 1, numQoHeads, headDim, headDimV = headDim }: AttentionCase,
  queries: readonly number[],
  rows: Float32Array,
  rowsLse: Float32Array,
): DecodeAnswer {
  const all = numRequests * numQueries;
  const out = new Float32Array(all * numQoHeads * headDimV);
  const lse = new Float32Array(all * numQoHeads).fill(-Infinity);
  queries.forEach((row, i) => {
    const size = numQoHeads * headDimV;
    out.set(rows.subarray(i * size, (i + 1) * size), row * size);
    lse.set(rowsLse.subarray(i * numQoHeads, (i + 1) * numQoHeads), row * numQoHeads);
  });
  return { out, lse };
}
