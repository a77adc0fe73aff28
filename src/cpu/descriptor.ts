/**
 * The words by which the WASM module is told what to compute; wasm/src/descriptor.rs reads them.
 *
 * @module
 */

import type { AttentionProblem, CacheStrides, MergeProblem } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import { WASM_DTYPE } from "./wasm_module.ts";

/** Blocks of WASM memory that one call of attention works on; 0 is none. */
export interface AttentionHandles {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  /** Bytes of v's block: in a cache without pages, v does not begin behind k. */
  readonly vBytes: number;
  readonly out: number;
  readonly lse: number;
  readonly kvScales: number;
  /** What {@linkcode attentionTables} gives. */
  readonly tables: number;
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
  const { causal, rope, logitsSoftCap, windowLeft, kvScales } = problem;
  const flags = (causal ? CAUSAL : 0) | (logitsSoftCap !== null ? CAPPED : 0) |
    (rope ? ROTATED : 0);
  const tables = tableOffsets(problem);
  const startOf = ({ offset = 0 }: CacheStrides) =>
    Math.min(offset * bytesPerElement(problem.vDtype), handles.vBytes);
  return Uint32Array.of(
    problem.numRequests,
    problem.numQoHeads,
    problem.numKvHeads,
    problem.headDim,
    problem.headDimV,
    flags,
    ...[handles.tables, tables.heads],
    problem.pageSize,
    ...[handles.q, byteOffset, WASM_DTYPE[problem.qDtype], qStrides.token, qStrides.head],
    ...[
      handles.k,
      byteOffset,
      WASM_DTYPE[problem.kDtype],
      kStrides.page,
      kStrides.token,
      kStrides.head,
    ],
    ...[
      handles.v,
      startOf(vStrides),
      WASM_DTYPE[problem.vDtype],
      vStrides.page,
      vStrides.token,
      vStrides.head,
    ],
    ...[handles.out, byteOffset, WASM_DTYPE[problem.outDtype], outStrides.token, outStrides.head],
    ...[handles.lse, byteOffset],
    ...[handles.tables, tables.requests],
    ...[handles.tables, tables.pages, (tables.starts - tables.pages) / 4],
    Math.min(windowLeft ?? NO_WINDOW, NO_WINDOW),
    ...words(Float32Array.of(logitsSoftCap ?? 0)),
    ...words(Float64Array.of(rope?.scale ?? 0, rope?.theta ?? 0, problem.lseScale)),
    ...(problem.mask ? [handles.tables, tables.mask, handles.tables, tables.starts] : [0, 0, 0, 0]),
    ...(kvScales ? [handles.kvScales, byteOffset, kvScales.page, kvScales.head] : [0, 0, 0, 0]),
  );
}

/** Where the tables of a problem begin in their block, and where the last ends, in bytes. */
function tableOffsets({ numQoHeads, numRequests, requests, pageTable, mask }: AttentionProblem) {
  const heads = 0;
  const afterHeads = heads + 16 * numQoHeads;
  const afterRequests = afterHeads + requests.byteLength;
  const afterPages = afterRequests + 4 * (pageTable?.length ?? numRequests);
  const afterStarts = afterPages + (mask?.firstWords.byteLength ?? 0);
  return {
    heads,
    requests: afterHeads,
    pages: afterRequests,
    starts: afterPages,
    mask: afterStarts,
    end: afterStarts + (mask?.words.byteLength ?? 0),
  };
}

/**
 * The tables of a problem: four floats a query head (the scales of its logits and its output, ALiBi's
 * slope, its sink), four words a request, the page table, and of a mask where each request's begins and
 * its words.
 */
export function attentionTables(problem: AttentionProblem): Uint32Array<ArrayBuffer> {
  const { numQoHeads, logitScales, outScales, alibiSlopes, sinks, pageTable, mask } = problem;
  const offsets = tableOffsets(problem);
  const tables = new Uint32Array(offsets.end / 4);
  const heads = new Float32Array(tables.buffer, offsets.heads, 4 * numQoHeads);
  for (let head = 0; head < numQoHeads; head++) {
    heads[4 * head] = logitScales[head];
    heads[4 * head + 1] = outScales[head];
    heads[4 * head + 2] = alibiSlopes ? alibiSlopes[head] : 0;
    heads[4 * head + 3] = sinks ? sinks[head] : -Infinity;
  }
  tables.set(problem.requests, offsets.requests / 4);
  const pages = tables.subarray(offsets.pages / 4, offsets.starts / 4);
  if (pageTable) pages.set(pageTable);
  else for (let i = 0; i < pages.length; i++) pages[i] = i;
  if (mask) {
    tables.set(mask.firstWords, offsets.starts / 4);
    tables.set(mask.words, offsets.mask / 4);
  }
  return tables;
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
