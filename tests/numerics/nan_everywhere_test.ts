/**
 * NaN and infinity codes of FP8 in every call: from v they reach one column of what sees them, from k and
 * q the whole rows, and nothing else changes by a bit. decode_nan_test.ts and prefill_nan_test.ts do the
 * same for padded calls and the other dtypes.
 */

import assert from "node:assert/strict";
import type { Device, DType } from "@kvasir/attention";
import { runCascade, type SharedPrefix, shareKeys } from "../support/cascade.ts";
import { runDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { runPagedDecode, runPagedPrefill } from "../support/paged.ts";
import { checkPoison, type Poison, poison } from "../support/poison.ts";
import {
  drawPrefill,
  makePrefill,
  type PrefillRun,
  type PrefillSpec,
  runPrefill,
} from "../support/prefill.ts";
import { runRagged } from "../support/ragged.ts";

const FP8 = ["float8_e4m3fn", "float8_e5m2"] as const;
const DECODE = {
  batch: 3,
  qoLen: 1,
  kvLen: 40,
  heads: [4, 2],
  headDim: 16,
  seqLens: [40, 0, 17],
} as const satisfies PrefillSpec;
const PREFILL = { ...DECODE, qoLen: 5, qoLens: [5, 0, 3], causal: true } as const;

/** NaN in k and in v of each token, in KV head 1 of the request. */
function inCache(request: number, tokens: readonly number[], value: number = NaN): Poison[] {
  const names = Number.isNaN(value) ? ["k", "v"] as const : ["v"] as const;
  return tokens.flatMap((token) =>
    names.map((name) => ({ name, value, request, token, head: 1, column: 11 }))
  );
}

async function check(
  device: Device,
  spec: PrefillSpec,
  run: PrefillRun,
  poisons: readonly Poison[],
): Promise<void> {
  for (const at of poisons) {
    await checkPoison(device, run, (place) => {
      const inputs = makePrefill(spec);
      place(inputs);
      return inputs;
    }, at);
  }
}

for (const kvDtype of FP8) {
  onEachBackend(`NaN codes of ${kvDtype}: paged decode, whole and split`, async (device) => {
    const run = runPagedDecode({ pageSize: 5 });
    await check(device, { ...DECODE, kvDtype }, run, inCache(0, [0, 13, 39]));
    await check(device, { ...DECODE, kvDtype, windowLeft: 20 }, run, inCache(0, [19]));
    const long = { ...DECODE, kvDtype, kvLen: 1500, seqLens: [1500, 0, 700] };
    await check(device, long, run, inCache(2, [0, 699]));
  });

  onEachBackend(`NaN codes of ${kvDtype}: ragged prefill`, async (device) => {
    await check(device, { ...PREFILL, kvDtype }, runRagged, inCache(0, [0, 37, 39]));
    const masked = { ...PREFILL, kvDtype, causal: false, maskDensity: 0.5 };
    await check(device, masked, runRagged, inCache(2, [8]));
  });
}

onEachBackend("NaN codes of a mixed cache: paged prefill", async (device) => {
  const spec = { ...PREFILL, kvDtype: "float8_e5m2", vDtype: "float8_e4m3fn" } as const;
  await check(device, spec, runPagedPrefill({ pageSize: 5 }), inCache(0, [0, 37, 39]));
});

onEachBackend("every NaN code counts as one, in each place of a word", async (device) => {
  const codes = { float8_e4m3fn: [0x7f, 0xff], float8_e5m2: [0x7d, 0x7e, 0x7f, 0xfd, 0xfe, 0xff] };
  for (const kvDtype of FP8) {
    const poisons = codes[kvDtype].flatMap((code, i) =>
      inCache(2, [16]).map((at) => ({ ...at, column: (5 * i + 3) % 16, code }))
    );
    await check(device, { ...DECODE, kvDtype }, runPagedDecode({ pageSize: 5 }), poisons);
    await check(device, { ...PREFILL, kvDtype }, runRagged, poisons);
  }
});

const SHARED: readonly SharedPrefix[] = [
  { tokens: 12, groups: [0] },
  { tokens: 8, groups: [0, 2] },
];
const CASCADE = {
  batch: 4,
  qoLen: 2,
  kvLen: 30,
  heads: [4, 2],
  headDim: 16,
  qoLens: [2, 1, 2, 1],
  seqLens: [30, 20, 27, 21],
} as const satisfies PrefillSpec;

for (const kvDtype of FP8) {
  onEachBackend(`NaN codes of ${kvDtype}: cascade`, async (device) => {
    const places: readonly (readonly [request: number, token: number, requests: number[]])[] = [
      [0, 5, [0, 1, 2, 3]], // what all share
      [2, 15, [2, 3]], // what the second group shares
      [2, 25, [2]], // a request's own
    ];
    for (const [request, token, requests] of places) {
      for (const at of inCache(request, [token])) {
        await checkPoison(
          device,
          runCascade(5, SHARED),
          (place) => {
            const inputs = makePrefill({ ...CASCADE, kvDtype });
            place(inputs);
            shareKeys(inputs, SHARED);
            return inputs;
          },
          at,
          requests,
        );
      }
    }
  });
}

onEachBackend("infinity in v: prefill", async (device) => {
  const dtypes: readonly DType[] = ["float8_e5m2", "float16"];
  for (const kvDtype of dtypes) {
    for (const value of [Infinity, -Infinity]) {
      await check(device, { ...PREFILL, kvDtype }, runPrefill, inCache(0, [0, 37, 39], value));
    }
  }
});

for (const qDtype of FP8) {
  onEachBackend(`NaN codes of queries in ${qDtype}`, async (device) => {
    const at = (token: number): Poison => ({
      name: "q",
      value: NaN,
      request: 2,
      token,
      head: 3,
      column: 6,
    });
    const spec = { qDtype, kvDtype: "float8_e4m3fn", outDtype: "float32" } as const;
    await check(device, { ...DECODE, ...spec }, runDecode, [at(0)]);
    await check(device, { ...PREFILL, ...spec }, runPrefill, [at(0), at(2)]);
  });
}

/** Two requests with positive queries; `last` is in the last key of each. */
function withLastKey(qoLen: number, seqLens: readonly [number, number], last?: number) {
  const spec = { ...DECODE, batch: 2, qoLen, seqLens, kvDtype: "float8_e5m2" } as const;
  const values = drawPrefill(spec);
  values.q.fill(0.25);
  const inputs = makePrefill(spec, values);
  if (last === undefined) return inputs;
  for (const [request, length] of seqLens.entries()) {
    for (const head of [0, 1]) {
      poison(inputs, { name: "k", value: last, request, token: length - 1, head, column: 3 });
    }
  }
  return inputs;
}

onEachBackend(
  "infinity in k: a logit of -infinity has no weight, others are NaN",
  async (device) => {
    for (const [qoLen, run] of [[1, runDecode], [3, runPrefill]] as const) {
      const low = await run(device, withLastKey(qoLen, [40, 1], -Infinity));
      const without = await run(device, withLastKey(qoLen, [39, 0]));
      for (const part of ["out", "lse"] as const) {
        low[part].forEach((x, i) => {
          const y = without[part][i];
          assert.ok(x === y || Math.abs(x - y) < 1e-5, `${part} ${i}: ${x}, without the key ${y}`);
        });
      }
      assert.equal(low.lse.at(-1), -Infinity);
      const high = await run(device, withLastKey(qoLen, [40, 1], Infinity));
      assert.ok(high.out.every(Number.isNaN) && high.lse.every(Number.isNaN), `${qoLen} queries`);
    }
  },
);
