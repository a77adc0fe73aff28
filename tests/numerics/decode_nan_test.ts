/** NaN and infinity: where they are they show, and nothing else changes. */

import assert from "node:assert/strict";
import type { Device, DType } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { type DecodeInputs, type DecodeSpec, makeInputs, runDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import { fillWithNan, store, type Stored } from "../support/storage.ts";

const HEADS = [6, 2] as const;
const HEAD_DIM = 64;
const BATCH = 3;

function inputsOf(kvDtype: DType, qDtype: DType = "float32"): DecodeInputs {
  const spec: DecodeSpec = { batch: BATCH, kvLen: 70, heads: HEADS, headDim: HEAD_DIM, kvDtype };
  return makeInputs({ ...spec, qDtype });
}

/** Puts one value into an element. */
function poke(stored: Stored, element: number, value: number) {
  const one = store([value], stored.dtype);
  stored.bytes.set(one.bytes, element * one.bytes.length);
  stored.values[element] = one.values[0];
}

/**
 * Runs before and after `poison`: rows (request, head) that `isHit` names must show it, all others
 * must keep their bits.
 */
async function checkStaysWithin(
  device: Device,
  inputs: DecodeInputs,
  poison: () => void,
  isHit: (request: number, head: number) => boolean,
  label: string,
) {
  const clean = await runDecode(device, inputs);
  poison();
  const { out, lse } = await runDecode(device, inputs);
  for (let row = 0; row < BATCH * HEADS[0]; row++) {
    const place = `${label}: request ${Math.floor(row / HEADS[0])}, head ${row % HEADS[0]}`;
    const part = out.subarray(row * HEAD_DIM, (row + 1) * HEAD_DIM);
    if (isHit(Math.floor(row / HEADS[0]), row % HEADS[0])) {
      assert.ok(part.some((x) => !Number.isFinite(x)), `${place} hides what it was given`);
      continue;
    }
    assertSameBits(part, clean.out.subarray(row * HEAD_DIM, (row + 1) * HEAD_DIM), place);
    assertSameBits(lse.subarray(row, row + 1), clean.lse.subarray(row, row + 1), `${place}, lse`);
  }
}

/** Query heads 3, 4 and 5 of request 1 read KV head 1. */
const isServedByHead1 = (request: number, head: number) => request === 1 && head >= 3;

for (const kvDtype of ["float32", "float16", "float8_e4m3fn", "float8_e5m2"] as const) {
  onEachBackend(`decode: NaN stays in its request and head; ${kvDtype}`, async (device) => {
    for (const token of [0, 40, 69]) {
      for (const name of ["k", "v"] as const) {
        const inputs = inputsOf(kvDtype);
        const at = cacheRow(inputs.problem, 1, token, 1) + 17;
        await checkStaysWithin(
          device,
          inputs,
          () => fillWithNan(inputs[name], at, at + 1),
          isServedByHead1,
          `NaN in ${name} of token ${token}`,
        );
      }
    }
  });
}

for (const qDtype of ["float32", "float16", "bfloat16"] as const) {
  onEachBackend(`decode: NaN in a query stays in its head; q ${qDtype}`, async (device) => {
    const inputs = inputsOf("float8_e4m3fn", qDtype);
    const at = (1 * HEADS[0] + 4) * HEAD_DIM + 63;
    await checkStaysWithin(
      device,
      inputs,
      () => fillWithNan(inputs.q, at, at + 1),
      (request, head) => request === 1 && head === 4,
      "NaN in q",
    );
  });
}

for (const kvDtype of ["float32", "float16", "float8_e5m2"] as const) {
  onEachBackend(`decode: infinity in v stays in its head; ${kvDtype}`, async (device) => {
    for (const value of [Infinity, -Infinity]) {
      const inputs = inputsOf(kvDtype);
      const at = cacheRow(inputs.problem, 1, 33, 1) + 5;
      await checkStaysWithin(
        device,
        inputs,
        () => {
          // Storing saturates in FP8, where infinity is a code of its own.
          if (kvDtype === "float8_e5m2") {
            inputs.v.bytes[at] = value > 0 ? 0x7c : 0xfc;
            inputs.v.values[at] = value;
          } else poke(inputs.v, at, value);
        },
        isServedByHead1,
        `${value} in v`,
      );
    }
  });
}

onEachBackend("decode: NaN in all that is unused changes no bit", async (device) => {
  for (const kvDtype of ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const) {
    for (const kvLayout of ["NHD", "HND"] as const) {
      const spec: DecodeSpec = { batch: 4, kvLen: 70, heads: HEADS, headDim: HEAD_DIM, kvDtype };
      const seqLens = [0, 1, 33, 69];
      const poisoned = makeInputs({ ...spec, kvLayout, seqLens });
      const full = makeInputs({ ...spec, kvLayout });
      const clean = { ...full, problem: { ...full.problem, kvLens: seqLens } };
      const expected = await runDecode(device, clean);
      const got = await runDecode(device, poisoned);
      assertSameBits(got.out, expected.out, `${kvDtype}, ${kvLayout}: out`);
      assertSameBits(got.lse, expected.lse, `${kvDtype}, ${kvLayout}: lse`);
    }
  }
});
