/** The proof's judge on a part of all floats: that it agrees, and that it would see what is wrong. */

import assert from "node:assert/strict";
import { encodeFp8 } from "@kvasir/attention";
import { countWrong, writeExpected } from "../../tools/fp8_proof.ts";
import { encode } from "../support/formats.ts";

const CHUNK = 2 ** 16;

Deno.test("countWrong() finds none among floats near the ends of both formats, and NaN", () => {
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    for (const saturate of [true, false]) {
      // 2^-18 to 2^-15, 2^7 to 2^10, 2^14 to 2^17, infinity and NaN; of both signs.
      for (
        const [from, to] of [[0x36800000, 0x38000000], [0x43000000, 0x44800000], [
          0x46800000,
          0x48000000,
        ], [0x7f7f0000, 0x7f820000]]
      ) {
        for (const sign of [0, 2 ** 31]) {
          assert.equal(countWrong(dtype, saturate, sign + from, sign + to), 0);
        }
      }
    }
  }
});

Deno.test("writeExpected() gives what the tests' own formats do", () => {
  const codes = new Uint8Array(CHUNK);
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    for (const saturate of [true, false]) {
      for (const start of [0, 0x3b800000, 0x43e70000, 0xc7700000, 0x7f800000, 0xff800000]) {
        writeExpected(start, dtype, saturate, codes);
        const bits = Uint32Array.from(codes, (_, i) => start + i);
        const nanIsNegative = start >= 2 ** 31;
        new Float32Array(bits.buffer).forEach((value, i) => {
          assert.equal(codes[i], encode(value, dtype, { saturate, nanIsNegative }), `${bits[i]}`);
        });
        assert.deepEqual(codes, encodeFp8(new Float32Array(bits.buffer), dtype, { saturate }));
      }
    }
  }
});
