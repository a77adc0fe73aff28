/**
 * One NaN or infinity in q, k or v, and the check that it shows where it must, and that every other bit of
 * the answer stays.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { Device } from "@kvasir/attention";
import { assertSameBits } from "./bits.ts";
import { encode, isFp8 } from "./formats.ts";
import { cacheRow, sees } from "./oracle.ts";
import type { PrefillInputs, PrefillRun } from "./prefill.ts";
import { store, type Stored } from "./storage.ts";

/** Where a value is put. */
export interface Poison {
  readonly name: "q" | "k" | "v";
  readonly value: number;
  readonly request: number;
  /** A query token of q; a key of k and v. */
  readonly token: number;
  /** A query head of q; a KV head of k and v. */
  readonly head: number;
  readonly column: number;
  /** Which of an FP8 format's codes of the value; the one that encoding gives. */
  readonly code?: number;
}

/** Puts one value into an element; FP8 does not saturate here. */
function poke(stored: Stored, element: number, value: number, code?: number): void {
  const { dtype, bytes, values } = stored;
  values[element] = value;
  if (isFp8(dtype)) bytes[element] = code ?? encode(value, dtype, { saturate: false });
  else {
    const one = store([value], dtype);
    bytes.set(one.bytes, element * one.bytes.length);
  }
}

/** Puts a poison into the inputs of a case. */
export function poison(
  inputs: PrefillInputs,
  { name, value, request, token, head, column, code }: Poison,
): void {
  const { problem: p } = inputs;
  const { headDim, headDimV = headDim, numQueries = 1, numQoHeads } = p;
  const row = name === "q"
    ? ((request * numQueries + token) * numQoHeads + head) * headDim
    : cacheRow(p, request, token, head, name === "k" ? headDim : headDimV);
  poke(inputs[name], row + column, value, code);
}

/** Whether a row of the answer reads what is poisoned; `requests` all have the poisoned key. */
function reads(
  { problem: p }: PrefillInputs,
  { name, request: own, token, head }: Poison,
  requests: readonly number[],
  [request, query, qoHead]: readonly [number, number, number],
): boolean {
  if (name === "q") return request === own && query === token && qoHead === head;
  if (query >= (p.qoLens?.[request] ?? p.numQueries ?? 1)) return false;
  const kvHead = Math.floor(qoHead * p.numKvHeads / p.numQoHeads);
  return kvHead === head && requests.includes(request) && sees(p, request, query, token);
}

/**
 * Runs a case with and without a poison. A row that reads it has, from v, the value in that column and no
 * other bit changed; from q and k, NaN in all columns and its lse. All other rows keep their bits.
 *
 * @param make The inputs, the same each time; `place` is called before they are put together.
 * @param requests Whose keys the poisoned one is among; its own request's alone by default.
 */
export async function checkPoison(
  device: Device,
  run: PrefillRun,
  make: (place: (inputs: PrefillInputs) => void) => PrefillInputs,
  at: Poison,
  requests: readonly number[] = [at.request],
): Promise<void> {
  const clean = await run(device, make(() => {}));
  const inputs = make((inputs) => poison(inputs, at));
  const { out, lse } = await run(device, inputs);
  const { headDim, headDimV = headDim, numQueries = 1, numQoHeads } = inputs.problem;
  let hits = 0;
  for (let row = 0; row < lse.length; row++) {
    const query = Math.floor(row / numQoHeads);
    const place = [Math.floor(query / numQueries), query % numQueries, row % numQoHeads] as const;
    const label = `${JSON.stringify(at)} ${at.value}: request, query, head ${place}`;
    const got = out.slice(row * headDimV, (row + 1) * headDimV);
    const expected = clean.out.slice(row * headDimV, (row + 1) * headDimV);
    const isHit = reads(inputs, at, requests, place);
    if (isHit) hits++;
    if (isHit && at.name !== "v") {
      assert.ok(got.every(Number.isNaN), `${label} hides NaN`);
      assert.ok(Number.isNaN(lse[row]), `${label}: lse hides NaN`);
      continue;
    }
    if (isHit) {
      assert.ok(Object.is(got[at.column], at.value), `${label} has ${got[at.column]}`);
      got[at.column] = expected[at.column];
    }
    assertSameBits(got, expected, label);
    assertSameBits(lse.subarray(row, row + 1), clean.lse.subarray(row, row + 1), `${label}: lse`);
  }
  assert.ok(hits > 0, `nothing reads ${JSON.stringify(at)}`);
}
