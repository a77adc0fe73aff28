/**
 * What the decode kernel is told, as the words of shaders/params.wgsl. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import type { DecodeDispatch, DecodePlan } from "./decode_plan.ts";
import { QUAD } from "./decode_shape.ts";

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
  options: { readonly writeLse: boolean; readonly ropeCoarse: number },
): Uint32Array<ArrayBuffer> {
  const { qStrides: q, outStrides: out, kStrides: k, vStrides: v, logitsSoftCap } = problem;
  const { pieceElements } = shape;
  // Where the binding begins, counted from the first page; u32 wraps as it should where it is before.
  // A window's offset is a multiple of any piece.
  const base = (name: "k" | "v") =>
    (dispatch.windows?.[name].offset ?? 0) /
      bytesPerElement(name === "k" ? problem.kDtype : problem.vDtype) -
    ((name === "k" ? k : v).offset ?? 0);
  const pieces = (elements: number) => elements / pieceElements;
  const words = Uint32Array.of(
    dispatch.numWork,
    shape.headBlocks,
    dispatch.heads[1] - dispatch.heads[0],
    dispatch.heads[0],
    problem.numQoHeads,
    problem.numQoHeads / problem.numKvHeads,
    options.writeLse || split ? 1 : 0,
    2 * dispatch.stretches.length,
    ...[q.token, q.head, out.token, out.head].map((elements) => elements / QUAD),
    ...[k.page, k.token, k.head, base("k")].map(pieces),
    ...[v.page, v.token, v.head, base("v")].map(pieces),
    0,
    0,
    options.ropeCoarse,
    NAN_BITS,
    ...scaleWords(problem, 2 * dispatch.stretches.length + problem.numQoHeads),
  );
  // The lse of a state is in base 2, whatever the caller's is in.
  new Float32Array(words.buffer).set(
    [split ? 1 : problem.lseScale, (logitsSoftCap ?? 0) * LOG2_E],
    20,
  );
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
  stretches.forEach(({ request, first, end, outRow }, i) => {
    const [qRow, , kvLen, firstPage] = requests.subarray(request * REQUEST_WORDS);
    words.set([qRow, outRow, first, end, firstPage, kvLen], 2 * i * ENTRY_WORDS);
  });
  words.set(headWords(problem), heads);
  return words;
}

/** The last words of params: where the scales of tokens lie, and the page table in the tables then. */
export function scaleWords({ kvScales }: AttentionProblem, pagesAt: number): readonly number[] {
  const { page = 0, part = 0, head = 0 } = kvScales ?? {};
  return [page, part, head, pagesAt];
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
  if (plan.dispatches.some(({ windows }) => windows !== null)) return null;
  const lengthOf = (words: Uint32Array, request: number) => words[request * REQUEST_WORDS + 2];
  let fits = true;
  const dispatches = plan.dispatches.map((dispatch) => ({
    ...dispatch,
    stretches: dispatch.stretches.map((stretch) => {
      const { request, first, end } = stretch;
      const old = lengthOf(before.requests, request);
      const length = lengthOf(requests, request);
      if (end !== old) {
        fits &&= end <= length;
        return stretch;
      }
      // A last stretch that grew by half is better split elsewhere.
      fits &&= length === old || (first < length && length - first <= 1.5 * (end - first) + 64);
      return length === old ? stretch : { ...stretch, end: length };
    }),
  }));
  return fits ? { ...plan, dispatches } : null;
}

/** An entry for each query head, as shaders/params.wgsl has it. */
export function headWords(problem: AttentionProblem): Uint32Array<ArrayBuffer> {
  const { logitScales, outScales, alibiSlopes, sinks, logitsSoftCap, numQoHeads } = problem;
  const floats = new Float32Array(numQoHeads * ENTRY_WORDS);
  // Logits are in base 2; under a cap they are the tangent's argument.
  const unit = logitsSoftCap === null ? LOG2_E : 1 / logitsSoftCap;
  for (let head = 0; head < numQoHeads; head++) {
    floats.set([
      logitScales[head] * unit,
      outScales[head],
      (alibiSlopes?.[head] ?? 0) * unit,
      (sinks?.[head] ?? 0) * LOG2_E,
    ], head * ENTRY_WORDS);
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
