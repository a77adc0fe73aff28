/**
 * What the append kernel is told, as the words of shaders/append/params.wgsl. Pure.
 *
 * @module
 */

import { type AppendProblem, SLOT_WORDS } from "../append_problem.ts";
import { bytesPerElement, type DType } from "../dtype.ts";
import type { AppendDispatch, AppendPass } from "./append_plan.ts";

/** Words of an entry of `slots`. */
const ENTRY_WORDS = 4;

/** The words of `Params`. */
export function paramWords(
  { numKvHeads, kStrides: k, vStrides: v, vOffset, kDtype, vDtype, kvScales }: AppendProblem,
  { pieceElements }: Pick<AppendPass, "pieceElements">,
  { numWork, keyWork, windows, firstPage }: AppendDispatch,
  ropeCoarse: number,
): Uint32Array<ArrayBuffer> {
  // Pages may begin anywhere, the windows that show them only where bindings can.
  const base = (stride: number, dtype: DType, window: { readonly offset: number } | undefined) =>
    firstPage * stride - (window?.offset ?? 0) / bytesPerElement(dtype);
  const kBase = base(k.page, kDtype, windows?.k);
  const vBase = vOffset === null ? base(v.page, vDtype, windows?.v) : kBase + vOffset;
  const pieces = [k.page, k.token, k.head, kBase, v.page, v.token, v.head, vBase]
    .map((elements) => elements / pieceElements);
  const { page = 0, head = 0 } = kvScales ?? {};
  const scales = [page, head, firstPage * page];
  return Uint32Array.of(numWork, keyWork, numKvHeads, ropeCoarse, ...pieces, ...scales);
}

/** The words of `slots`: four a token of the dispatch. */
export function slotWords(
  { slots }: AppendProblem,
  { tokens, firstPage }: AppendDispatch,
): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(tokens.length * ENTRY_WORDS);
  tokens.forEach((token, i) => {
    const [page, place, position] = slots.subarray(token * SLOT_WORDS, (token + 1) * SLOT_WORDS);
    words.set([token, page - firstPage, place, position], i * ENTRY_WORDS);
  });
  return words;
}

/** The words of `factors`: of each head of k, then of v. */
export function factorWords(
  { numKvHeads, kFactors, vFactors }: AppendProblem,
): Uint32Array<ArrayBuffer> {
  const factors = new Float32Array(2 * numKvHeads).fill(1);
  if (kFactors) factors.set(kFactors);
  if (vFactors) factors.set(vFactors, numKvHeads);
  return new Uint32Array(factors.buffer);
}

/** One more than the largest position. */
export function endPosition({ slots }: AppendProblem): number {
  let end = 1;
  for (let at = 2; at < slots.length; at += SLOT_WORDS) end = Math.max(end, slots[at] + 1);
  return end;
}
