/** NaN, infinity and extreme numbers in prefill: where they are they show, and nothing else changes. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import {
  checkPrefill,
  drawPrefill,
  makePrefill,
  type PrefillSpec,
  runPrefill,
} from "../support/prefill.ts";
import { store, type Stored } from "../support/storage.ts";

const N = 19;
const L = 70;
const SPEC = {
  batch: 2,
  qoLen: N,
  kvLen: L,
  heads: [6, 2],
  headDim: 16,
  causal: true,
} as const satisfies PrefillSpec;

/** Puts one value into an element. */
function poke(stored: Stored, element: number, value: number) {
  const one = store([value], stored.dtype);
  stored.bytes.set(one.bytes, element * one.bytes.length);
}

for (const kvDtype of ["float32", "float16", "float8_e4m3fn"] as const) {
  onEachBackend(`prefill: NaN stays with the queries that see it; ${kvDtype}`, async (device) => {
    const clean = await runPrefill(device, makePrefill({ ...SPEC, kvDtype }));
    for (
      const [name, token] of [["k", 5], ["v", 5], ["k", 60], ["v", 60], ["k", 69], [
        "v",
        69,
      ]] as const
    ) {
      const inputs = makePrefill({ ...SPEC, kvDtype });
      // Request 1, KV head 1: query heads 3, 4 and 5.
      poke(inputs[name], cacheRow(inputs.problem, 1, token, 1) + 7, NaN);
      const { out, lse } = await runPrefill(device, inputs);
      for (let row = 0; row < 2 * N * 6; row++) {
        const [request, query, head] = [
          Math.floor(row / (6 * N)),
          Math.floor(row / 6) % N,
          row % 6,
        ];
        const label = `${name}, token ${token}: request ${request}, query ${query}, head ${head}`;
        const part = out.subarray(row * 16, row * 16 + 16);
        if (request === 1 && head >= 3 && query + L - N >= token) {
          assert.ok(Number.isNaN(part[7]), `${label} hides NaN`);
          if (name === "k") assert.ok(part.every(Number.isNaN) && Number.isNaN(lse[row]), label);
          continue;
        }
        assertSameBits(part, clean.out.subarray(row * 16, row * 16 + 16), label);
        assertSameBits(lse.subarray(row, row + 1), clean.lse.subarray(row, row + 1), label);
      }
    }
  });
}

onEachBackend("prefill: NaN and infinity in q stay in their row", async (device) => {
  const qDtypes: readonly DType[] = ["float32", "float16"];
  for (const qDtype of qDtypes) {
    const clean = await runPrefill(device, makePrefill({ ...SPEC, qDtype }));
    for (const value of [NaN, Infinity, -Infinity]) {
      for (const row of [0, 6 * 3 + 2, 6 * N + 5, 2 * 6 * N - 1]) {
        const inputs = makePrefill({ ...SPEC, qDtype });
        poke(inputs.q, row * 16 + 3, value);
        const { out, lse } = await runPrefill(device, inputs);
        assert.ok(
          out.subarray(row * 16, row * 16 + 16).every(Number.isNaN),
          `${value}, row ${row}`,
        );
        out.set(clean.out.subarray(row * 16, row * 16 + 16), row * 16);
        lse[row] = clean.lse[row];
        assertSameBits(out, clean.out, `${value} in row ${row}: out`);
        assertSameBits(lse, clean.lse, `${value} in row ${row}: lse`);
      }
    }
  }
});

onEachBackend("prefill: logits beyond any mask value (FlashInfer #4267)", async (device) => {
  // q·k is -64 · 64 · 128 · scale: below the -5e4 that stood for "masked" there.
  for (const [qoLen, kvLen] of [[34, 1], [34, 34], [5, 40]]) {
    const spec: PrefillSpec = { qoLen, kvLen, heads: [2, 1], headDim: 128, causal: true };
    for (const smScale of [1, undefined]) {
      const values = drawPrefill(spec);
      values.q.fill(64);
      values.k.fill(-64);
      const inputs = makePrefill({ ...spec, smScale }, values);
      await checkPrefill(device, `${qoLen} over ${kvLen}, smScale ${smScale}`, inputs);
    }
  }
});

onEachBackend("prefill: one key that outweighs all, from each place", async (device) => {
  const spec: PrefillSpec = { ...SPEC, batch: 1, causal: false };
  for (const token of [0, 15, 16, 31, 32, 63, 64, 69]) {
    const values = drawPrefill(spec);
    values.q.fill(1);
    values.k.fill(-1);
    values.k.fill(30, token * 32, token * 32 + 32);
    const { out } = await checkPrefill(device, `token ${token}`, makePrefill(spec, values));
    for (let row = 0; row < N * 6; row++) {
      const value = token * 32 + (row % 6 < 3 ? 0 : 16);
      assertSameBits(
        out.subarray(row * 16, row * 16 + 16),
        values.v.subarray(value, value + 16),
        `token ${token}, row ${row}`,
      );
    }
  }
});

onEachBackend("prefill: equal logits, huge and tiny magnitudes", async (device) => {
  for (const magnitude of [0, 1e-25, 1e-3, 30, 1e3]) {
    await checkPrefill(device, `magnitude ${magnitude}`, makePrefill({ ...SPEC, magnitude }));
  }
});
