/**
 * The words by which the WASM module is told what to compute; wasm/src/descriptor.rs reads them.
 *
 * @module
 */

import type { AttentionProblem, MergeProblem } from "../attention_problem.ts";
import { WASM_DTYPE } from "./wasm_module.ts";

/** Blocks of WASM memory that one call of attention works on; 0 is none. */
export interface AttentionHandles {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly out: number;
  readonly lse: number;
  readonly heads: number;
  readonly requests: number;
  readonly pageTable: number;
  readonly pageTableLength: number;
}

/** Blocks of WASM memory that one merge works on. */
export interface MergeHandles {
  readonly vA: number;
  readonly sA: number;
  readonly vB: number;
  readonly sB: number;
  readonly out: number;
  readonly lse: number;
  readonly rows: number;
}

/** The bits of the flags. */
const CAUSAL = 1, CAPPED = 2, ROTATED = 4;

/** The word that stands for a window without end. */
const NO_WINDOW = 2 ** 32 - 1;

/** Every tensor of this backend begins its block. */
const byteOffset = 0;

/** The descriptor of a problem, in the order of wasm/src/descriptor.rs. */
export function attentionDescriptor(
  problem: AttentionProblem,
  handles: AttentionHandles,
): Uint32Array<ArrayBuffer> {
  const { qStrides, kStrides, vStrides, outStrides } = problem;
  const { causal, rope, logitsSoftCap, windowLeft } = problem;
  const flags = (causal ? CAUSAL : 0) | (logitsSoftCap !== null ? CAPPED : 0) |
    (rope ? ROTATED : 0);
  const kvDtype = WASM_DTYPE[problem.kvDtype];
  return Uint32Array.of(
    problem.numRequests,
    problem.numQoHeads,
    problem.numKvHeads,
    problem.headDim,
    problem.headDim,
    flags,
    ...[handles.heads, byteOffset],
    problem.pageSize,
    ...[handles.q, byteOffset, WASM_DTYPE[problem.qDtype], qStrides.token, qStrides.head],
    ...[handles.k, byteOffset, kvDtype, kStrides.page, kStrides.token, kStrides.head],
    ...[handles.v, byteOffset, kvDtype, vStrides.page, vStrides.token, vStrides.head],
    ...[handles.out, byteOffset, WASM_DTYPE[problem.outDtype], outStrides.token, outStrides.head],
    ...[handles.lse, byteOffset],
    ...[handles.requests, byteOffset],
    ...[handles.pageTable, byteOffset, handles.pageTableLength],
    Math.min(windowLeft ?? NO_WINDOW, NO_WINDOW),
    ...words(Float32Array.of(logitsSoftCap ?? 0)),
    ...words(Float64Array.of(rope?.scale ?? 0, rope?.theta ?? 0, problem.lseScale)),
  );
}

/** What every query head has of its own: scales of logit and output, ALiBi's slope, the sink. */
export function headParameters(problem: AttentionProblem): Float32Array<ArrayBuffer> {
  const { numQoHeads, logitScales, outScales, alibiSlopes, sinks } = problem;
  const parameters = new Float32Array(4 * numQoHeads);
  for (let head = 0; head < numQoHeads; head++) {
    parameters[4 * head] = logitScales[head];
    parameters[4 * head + 1] = outScales[head];
    parameters[4 * head + 2] = alibiSlopes ? alibiSlopes[head] : 0;
    parameters[4 * head + 3] = sinks ? sinks[head] : -Infinity;
  }
  return parameters;
}

/** The descriptor of a merge, in the order of wasm/src/merge/descriptor.rs. */
export function mergeDescriptor(
  problem: MergeProblem,
  handles: MergeHandles,
): Uint32Array<ArrayBuffer> {
  const { vA, sA, vB, sB, out, lse, rows } = handles;
  return Uint32Array.of(
    problem.numRows,
    problem.numHeads,
    problem.headDim,
    WASM_DTYPE[problem.vDtype],
    WASM_DTYPE[problem.outDtype],
    ...[vA, sA, vB, sB, out, lse, rows].flatMap((handle) => [handle, byteOffset]),
  );
}

function words(values: Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>): Uint32Array {
  return new Uint32Array(values.buffer);
}
