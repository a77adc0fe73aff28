/**
 * Comparison bit by bit, for what must not only be near.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { DecodeAnswer } from "./decode.ts";

/** Fails at the first element whose bits differ. */
export function assertSameBits(got: Float32Array, expected: Float32Array, label: string): void {
  assert.equal(got.length, expected.length, label);
  const gotBits = new Uint32Array(got.buffer, got.byteOffset, got.length);
  const expectedBits = new Uint32Array(expected.buffer, expected.byteOffset, expected.length);
  const at = gotBits.findIndex((bits, i) => bits !== expectedBits[i]);
  if (at >= 0) assert.fail(`${label}: element ${at}: got ${got[at]}, not ${expected[at]}`);
}

/** Fails unless both answers have the same bits in out and in lse. */
export function assertSameAnswer(got: DecodeAnswer, expected: DecodeAnswer, label: string): void {
  assertSameBits(got.out, expected.out, `${label}: out`);
  assertSameBits(got.lse, expected.lse, `${label}: lse`);
}
