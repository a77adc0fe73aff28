/**
 * NaN and infinity codes in an FP8 cache, in every call: they show in the rows that see them, of their own
 * request and KV head, and no other row changes by a bit. docs/fp8.md says what is promised.
 */

import assert from "node:assert/strict";
import type { Device } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { type Call, CALLS, inputsOf } from "../support/calls.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import {
  makePrefill,
  type PrefillInputs,
  type PrefillSpec,
  runPrefill,
} from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";

/** All NaN codes of a format matter: the quick ways to decode differ in which they know. */
const NAN_CODES = {
  float8_e4m3fn: [0x7f, 0xff],
  float8_e5m2: [0x7d, 0x7e, 0x7f, 0xfd, 0xfe, 0xff],
} as const;
type Format = keyof typeof NAN_CODES;

/** A code in one element of k or v. */
interface Poison {
  readonly part: "k" | "v";
  readonly request: number;
  readonly token: number;
  readonly kvHead: number;
  readonly dim: number;
  readonly code: number;
}

/** Whether a row of the output (request, query, head) may show it. */
type IsHit = (request: number, query: number, head: number) => boolean;

/** Puts the codes in, runs, and compares with the answer without them. */
async function checkStays(
  device: Device,
  label: string,
  run: Call["run"],
  make: () => PrefillInputs,
  poisons: readonly Poison[],
  isHit: IsHit,
): Promise<void> {
  const clean = await run(device, make());
  const dirty = make();
  for (const { part, request, token, kvHead, dim, code } of poisons) {
    dirty[part].bytes[cacheRow(dirty.problem, request, token, kvHead) + dim] = code;
  }
  const { numQoHeads, numQueries = 1, numRequests, headDim } = dirty.problem;
  const { part, dim } = poisons[0];
  const { out, lse } = await run(device, dirty);
  for (let row = 0; row < numRequests * numQueries * numQoHeads; row++) {
    const head = row % numQoHeads;
    const query = Math.floor(row / numQoHeads) % numQueries;
    const request = Math.floor(row / (numQoHeads * numQueries));
    const place = `${label}: request ${request}, query ${query}, head ${head}`;
    const [first, end] = [row * headDim, (row + 1) * headDim];
    if (isHit(request, query, head)) {
      if (part === "k") {
        assert.ok(out.subarray(first, end).every(Number.isNaN), `${place} hides NaN in k`);
        assert.ok(Number.isNaN(lse[row]), `${place}: lse hides NaN in k`);
        continue;
      }
      // NaN in v is in its column only, and lse knows nothing of v.
      assert.ok(Number.isNaN(out[first + dim]), `${place} hides NaN in v`);
      out[first + dim] = clean.out[first + dim];
    }
    assertSameBits(out.subarray(first, end), clean.out.subarray(first, end), place);
    assertSameBits(lse.subarray(row, row + 1), clean.lse.subarray(row, row + 1), `${place}, lse`);
  }
}

/** The rows of a request that see a token, in the query heads of KV head 1 (3, 4 and 5 of 6). */
function seenBy({ problem }: PrefillInputs, owner: number | null, token: number): IsHit {
  const { qoLens, kvLens, numQueries = 1, maxKvLen, causal } = problem;
  return (request, query, head) => {
    const [qoLen, kvLen] = [qoLens?.[request] ?? numQueries, kvLens?.[request] ?? maxKvLen];
    if (head < 3 || query >= qoLen || (owner !== null && request !== owner)) return false;
    return token < kvLen && (!causal || token <= query + kvLen - qoLen);
  };
}

for (const [name, call] of Object.entries(CALLS)) {
  for (const kvDtype of Object.keys(NAN_CODES) as Format[]) {
    onEachBackend(
      `NaN codes of ${kvDtype} stay with those who see them: ${name}`,
      async (device) => {
        const make = () => inputsOf(call, { ...call.spec, kvDtype });
        const [request, token] = call.spec.batch === 1 ? [0, 60] : [1, 0];
        // Of a cascade, behind the shared tokens.
        const alone = call.shared.length > 0 ? 57 : token;
        const own = { request, token: alone, kvHead: 1 };
        for (const part of ["k", "v"] as const) {
          for (const [i, code] of NAN_CODES[kvDtype].entries()) {
            const poison = { ...own, part, code, dim: (2 + 3 * i) % 16 };
            const label = `${name}, ${kvDtype} code ${code} in ${part}`;
            const hit = seenBy(make(), request, alone);
            await checkStays(device, label, call.run, make, [poison], hit);
          }
        }
      },
    );
  }
}

onEachBackend(
  "NaN codes in what a cascade shares show in all requests of their head",
  async (device) => {
    const call = CALLS.cascade;
    for (const kvDtype of Object.keys(NAN_CODES) as Format[]) {
      const make = () => inputsOf(call, { ...call.spec, kvDtype });
      for (const part of ["k", "v"] as const) {
        const poisons = Array.from({ length: call.spec.batch! }, (_, request): Poison => {
          return { part, request, token: 11, kvHead: 1, dim: 5, code: 0x7f };
        });
        const hit = seenBy(make(), null, 11);
        await checkStays(device, `${kvDtype}, ${part}`, call.run, make, poisons, hit);
      }
    }
  },
);

const MASKED: PrefillSpec = { batch: 2, qoLen: 19, kvLen: 70, heads: [6, 2], headDim: 16 };

onEachBackend("NaN codes that a mask or a window hides show nowhere", async (device) => {
  // Some queries see token 40, some do not.
  const isShown = (request: number, query: number, key: number) =>
    key !== 40 || (request === 1 && query % 3 === 0);
  const mask = Array.from(
    { length: 2 * 19 * 70 },
    (_, i) => isShown(Math.floor(i / (19 * 70)), Math.floor(i / 70) % 19, i % 70),
  );
  for (const kvDtype of Object.keys(NAN_CODES) as Format[]) {
    for (const part of ["k", "v"] as const) {
      const poison = { part, request: 1, kvHead: 1, dim: 3, code: 0x7f };
      const masked = () => makePrefill({ ...MASKED, kvDtype }, undefined, mask);
      for (const [form, run] of [["padded", runPrefill], ["ragged", runRagged]] as const) {
        await checkStays(
          device,
          `${form}, masked, ${kvDtype} in ${part}`,
          run,
          masked,
          [{ ...poison, token: 40 }],
          (request, query, head) => request === 1 && head >= 3 && query % 3 === 0,
        );
        const windowed = () => makePrefill({ ...MASKED, kvDtype, windowLeft: 20 });
        // Query i stands at 51 + i, and sees from 31 + i on.
        await checkStays(
          device,
          `${form}, window, ${kvDtype} in ${part}`,
          run,
          windowed,
          [{ ...poison, token: 40 }],
          (request, query, head) => request === 1 && head >= 3 && query + 31 <= 40,
        );
      }
    }
  }
});
