/**
 * The words by which the WASM module is told what to compute; wasm/src/descriptor.rs reads them.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import { WASM_DTYPE } from "./wasm_module.ts";

/** Blocks of WASM memory that one call works on; 0 is none. */
export interface DescriptorHandles {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly out: number;
  readonly lse: number;
  readonly requests: number;
  readonly pageTable: number;
  readonly pageTableLength: number;
}

/** The bit of the flags that stands for causal masking. */
const CAUSAL = 1;

/** The descriptor of a problem, in the order of wasm/src/descriptor.rs. */
export function attentionDescriptor(
  problem: AttentionProblem,
  handles: DescriptorHandles,
): Uint32Array<ArrayBuffer> {
  const { qStrides, kStrides, vStrides, outStrides } = problem;
  const flags = problem.causal ? CAUSAL : 0;
  const byteOffset = 0; // every tensor of this backend begins its block
  const kvDtype = WASM_DTYPE[problem.kvDtype];
  return Uint32Array.of(
    problem.numRequests,
    problem.numQoHeads,
    problem.numKvHeads,
    problem.headDim,
    problem.headDim,
    flags,
    floatBits(problem.logitScales[0]),
    floatBits(problem.outScales[0]),
    problem.pageSize,
    ...[handles.q, byteOffset, WASM_DTYPE[problem.qDtype], qStrides.token, qStrides.head],
    ...[handles.k, byteOffset, kvDtype, kStrides.page, kStrides.token, kStrides.head],
    ...[handles.v, byteOffset, kvDtype, vStrides.page, vStrides.token, vStrides.head],
    ...[handles.out, byteOffset, WASM_DTYPE[problem.outDtype], outStrides.token, outStrides.head],
    ...[handles.lse, byteOffset],
    ...[handles.requests, byteOffset],
    ...[handles.pageTable, byteOffset, handles.pageTableLength],
  );
}

function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0];
}
