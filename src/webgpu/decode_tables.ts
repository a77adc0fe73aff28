/**
 * What the decode kernel is told, as the words of shaders/params.wgsl. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import type { DecodeDispatch, DecodePlan } from "./decode_plan.ts";
import { QUAD } from "./decode_shape.ts";
import type { Stretch } from "./decode_stretches.ts";
import type { InputOptions } from "./templates.ts";

const LOG2_E = Math.LOG2E;
/** A NaN. */
export const NAN_BITS = 0x7fc00000;
/** Words of an entry of `tables`; a stretch takes two entries. */
const ENTRY_WORDS = 4;

/** The words of `Params`. */
export function paramWords(
  problem: AttentionProblem,
  { shape, split }: DecodePlan,
  dispatch: DecodeDispatch,
  options: InputOptions,
): Uint32Array<ArrayBuffer> {
  const { qStrides: q, outStrides: out, kStrides: k, vStrides: v, logitsSoftCap } = problem;
  const { pieceElements: piece } = shape;
  // Where the binding begins, counted from the first page; u32 wraps as it should where it is before.
  // A window's offset is a multiple of any piece.
  const { windows } = dispatch;
  const kBase = (windows?.k.offset ?? 0) / bytesPerElement(problem.kDtype) - (k.offset ?? 0);
  const vBase = (windows?.v.offset ?? 0) / bytesPerElement(problem.vDtype) - (v.offset ?? 0);
  const words = Uint32Array.of(
    dispatch.numWork,
    shape.headBlocks,
    dispatch.heads[1] - dispatch.heads[0],
    dispatch.heads[0],
    problem.numQoHeads,
    problem.numQoHeads / problem.numKvHeads,
    options.writeLse || split ? 1 : 0,
    2 * dispatch.stretches.length,
    q.token / QUAD,
    q.head / QUAD,
    out.token / QUAD,
    out.head / QUAD,
    k.page / piece,
    k.token / piece,
    k.head / piece,
    kBase / piece,
    v.page / piece,
    v.token / piece,
    v.head / piece,
    vBase / piece,
    0,
    0,
    options.ropeCoarse,
    NAN_BITS,
    ...scaleWords(problem, 2 * dispatch.stretches.length + problem.numQoHeads),
  );
  // The lse of a state is in base 2, whatever the caller's is in.
  const floats = new Float32Array(words.buffer);
  floats[20] = split ? 1 : problem.lseScale;
  floats[21] = (logitsSoftCap ?? 0) * LOG2_E;
  return words;
}

/** The words of `tables`: two entries a stretch, then one a query head. */
export function tableWords(
  problem: AttentionProblem,
  stretches: DecodeDispatch["stretches"],
): Uint32Array<ArrayBuffer> {
  const { numQoHeads, requests } = problem;
  const heads = 2 * stretches.length * ENTRY_WORDS;
  const words = new Uint32Array(heads + numQoHeads * ENTRY_WORDS);
  for (let i = 0, to = 0; i < stretches.length; i++, to += 2 * ENTRY_WORDS) {
    const { request, first, end, outRow } = stretches[i];
    const from = request * REQUEST_WORDS;
    words[to] = requests[from];
    words[to + 1] = outRow;
    words[to + 2] = first;
    words[to + 3] = end;
    words[to + 4] = requests[from + 3];
    words[to + 5] = requests[from + 2];
  }
  words.set(headWords(problem), heads);
  return words;
}

/** The last words of params: where the scales of tokens lie, and the page table in the tables then. */
export function scaleWords({ kvScales }: AttentionProblem, pagesAt: number): readonly number[] {
  const { page = 0, head = 0 } = kvScales ?? {};
  return [page, head, pagesAt];
}

/** The words of tables, and with scales of tokens the page table, which has no binding then. */
export function withPageTable(
  words: Uint32Array<ArrayBuffer>,
  { kvScales, pageTable }: AttentionProblem,
): Uint32Array<ArrayBuffer> {
  if (kvScales === null || pageTable === null) return words;
  const entries = Math.ceil(pageTable.length / ENTRY_WORDS);
  const all = new Uint32Array(words.length + entries * ENTRY_WORDS);
  all.set(words);
  all.set(pageTable, words.length);
  return all;
}

/**
 * A plan for the same problem with other lengths, where only the last stretches of requests end
 * elsewhere; null where it takes a new plan.
 */
export function withLengths(
  before: AttentionProblem,
  { requests, numRequests }: AttentionProblem,
  plan: DecodePlan,
): DecodePlan | null {
  if (before.numRequests !== numRequests || before.windowLeft !== null || before.rope) return null;
  const dispatches: DecodeDispatch[] = [];
  for (const dispatch of plan.dispatches) {
    if (dispatch.windows !== null) return null;
    const stretches: Stretch[] = [];
    for (const stretch of dispatch.stretches) {
      const { request, first, end, outRow } = stretch;
      const old = before.requests[request * REQUEST_WORDS + 2];
      const length = requests[request * REQUEST_WORDS + 2];
      const isLast = end === old;
      if (!isLast && end > length) return null;
      if (!isLast || length === old) {
        stretches.push(stretch);
        continue;
      }
      // A last stretch that grew by half is better split elsewhere.
      if (first >= length || length - first > 1.5 * (end - first) + 64) return null;
      stretches.push({ request, first, end: length, outRow });
    }
    dispatches.push({ ...dispatch, stretches });
  }
  return { ...plan, dispatches };
}

/** An entry for each query head, as shaders/params.wgsl has it. */
export function headWords(problem: AttentionProblem): Uint32Array<ArrayBuffer> {
  const { logitScales, outScales, alibiSlopes, sinks, logitsSoftCap, numQoHeads } = problem;
  const floats = new Float32Array(numQoHeads * ENTRY_WORDS);
  // Logits are in base 2; under a cap they are the tangent's argument.
  const unit = logitsSoftCap === null ? LOG2_E : 1 / logitsSoftCap;
  for (let head = 0, to = 0; head < numQoHeads; head++, to += ENTRY_WORDS) {
    floats[to] = logitScales[head] * unit;
    floats[to + 1] = outScales[head];
    if (alibiSlopes) floats[to + 2] = alibiSlopes[head] * unit;
    if (sinks) floats[to + 3] = sinks[head] * LOG2_E;
  }
  return new Uint32Array(floats.buffer);
}

/** The keys or queries of the longest request: positions lie below, on either side of 0. */
export function longestRequest({ requests }: AttentionProblem): number {
  let keys = 0;
  for (let at = 0; at < requests.length; at += REQUEST_WORDS) {
    keys = Math.max(keys, requests[at + 1], requests[at + 2]);
  }
  return keys;
}
