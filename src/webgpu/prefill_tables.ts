/**
 * What the prefill kernel is told, as the words of shaders/prefill/params.wgsl. Pure.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import { headWords, NAN_BITS, scaleWords, withPageTable } from "./decode_tables.ts";
import { QUAD } from "./decode_shape.ts";
import type { PrefillDispatch, PrefillPlan } from "./prefill_plan.ts";
import type { InputOptions } from "./templates.ts";

/** Words of an entry of `tables`; a work takes three. */
const ENTRY_WORDS = 4;
const WORK_ENTRIES = 3;
/** Far more keys than there are. */
const NO_WINDOW = 2 ** 30;

/** The words of `Params`. */
export function paramWords(
  problem: AttentionProblem,
  { shape, split }: PrefillPlan,
  { works, numWork }: PrefillDispatch,
  options: InputOptions,
): Uint32Array<ArrayBuffer> {
  const { qStrides: q, kStrides: k, vStrides: v, numQoHeads, numKvHeads, headDimV } = problem;
  const out = split ? { token: numQoHeads * headDimV, head: headDimV } : problem.outStrides;
  const pieces = (elements: number) => elements / shape.pieceElements;
  const headsAt = WORK_ENTRIES * works.length;
  const maskAt = headsAt + numQoHeads;
  const variantAt = maskAt + maskEntries(problem);
  const words = Uint32Array.of(
    numWork,
    numKvHeads,
    0,
    numQoHeads,
    numQoHeads / numKvHeads,
    options.writeLse || split ? 1 : 0,
    headsAt,
    maskAt,
    ...[q.token, q.head, out.token, out.head].map((elements) => elements / QUAD),
    ...[k.page, k.token, k.head, -(k.offset ?? 0)].map(pieces),
    ...[v.page, v.token, v.head, -(v.offset ?? 0)].map(pieces),
    0,
    0,
    options.ropeCoarse,
    problem.causal ? 1 : 0,
    Math.min(problem.windowLeft ?? NO_WINDOW, NO_WINDOW),
    NAN_BITS,
    variantAt,
    ...scaleWords(problem, variantAt + variantEntries(problem)),
  );
  // The lse of a state is in base 2, whatever the caller's is in.
  new Float32Array(words.buffer).set(
    [split ? 1 : problem.lseScale, (problem.logitsSoftCap ?? 0) * Math.LOG2E],
    20,
  );
  return words;
}

/** Entries of the mask. */
function maskEntries({ mask }: AttentionProblem): number {
  return Math.ceil((mask?.words.length ?? 0) / ENTRY_WORDS);
}

/** Entries of a variant's numbers. */
function variantEntries({ variant }: AttentionProblem): number {
  return Math.ceil((variant?.params.length ?? 0) / ENTRY_WORDS);
}

/** The words of `tables`: as shaders/prefill/params.wgsl has them. */
export function tableWords(
  problem: AttentionProblem,
  { split }: PrefillPlan,
  { works }: PrefillDispatch,
): Uint32Array<ArrayBuffer> {
  const { requests, mask, variant } = problem;
  const heads = headWords(problem);
  const headsAt = WORK_ENTRIES * works.length * ENTRY_WORDS;
  const maskAt = headsAt + heads.length;
  const numbersAt = maskAt + maskEntries(problem) * ENTRY_WORDS;
  const numbers = Float32Array.from(variant?.params ?? [], ([, value]) => value);
  const words = new Uint32Array(numbersAt + variantEntries(problem) * ENTRY_WORDS);
  works.forEach(({ request, firstRow, first, end, chunk }, i) => {
    const [qRow, qoLen, kvLen, firstPage] = requests.subarray(request * REQUEST_WORDS);
    const place = split?.requests[request];
    const [outRow, outStep] = place ? [place.first + chunk, place.chunks] : [qRow, 1];
    words.set([
      ...[qRow, qoLen, kvLen, firstPage],
      ...[firstRow, first, end, outRow],
      ...[outStep, mask?.firstWords[request] ?? 0, request],
    ], i * WORK_ENTRIES * ENTRY_WORDS);
  });
  words.set(heads, headsAt);
  if (mask) words.set(mask.words, maskAt);
  new Float32Array(words.buffer).set(numbers, numbersAt);
  return withPageTable(words, problem);
}
