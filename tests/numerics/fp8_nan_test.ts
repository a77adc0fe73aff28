/**
 * NaN and infinity codes in an FP8 cache, in every call: they show in the rows that see them, of their own
 * request and KV head, and no other row changes by a bit. docs/fp8.md says what is promised.
 */

import assert from "node:assert/strict";
import { appendPagedKvCache, type Device } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { type Call, CALLS, inputsOf } from "../support/calls.ts";
import { runDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import {
  drawPrefill,
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

/** Puts the codes in, runs, and compares with the answer without them; those of v decode to `shown`. */
async function checkStays(
  device: Device,
  label: string,
  run: Call["run"],
  make: () => PrefillInputs,
  poisons: readonly Poison[],
  isHit: IsHit,
  shown = NaN,
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
      assert.ok(Object.is(out[first + dim], shown), `${place} hides ${shown} in v`);
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

for (const name of ["padded decode", "padded prefill"]) {
  onEachBackend(`NaN and infinity codes in q stay in their row: ${name}`, async (device) => {
    const call = CALLS[name];
    for (const qDtype of Object.keys(NAN_CODES) as Format[]) {
      // Infinity too, among whose logits are some of +infinity.
      const infinities = qDtype === "float8_e5m2" ? [0x7c, 0xfc] : [];
      for (const code of [...NAN_CODES[qDtype], ...infinities]) {
        const spec = { ...call.spec, qDtype, outDtype: "float32" } as const;
        const clean = await call.run(device, inputsOf(call, spec));
        const inputs = inputsOf(call, spec);
        // Request 1, query 0, head 4.
        const row = (inputs.problem.numQueries ?? 1) * 6 + 4;
        inputs.q.bytes[row * 16 + 7] = code;
        const { out, lse } = await call.run(device, inputs);
        const label = `${qDtype}, code ${code}`;
        assert.ok(out.subarray(row * 16, row * 16 + 16).every(Number.isNaN), label);
        assert.ok(Number.isNaN(lse[row]), label);
        out.set(clean.out.subarray(row * 16, row * 16 + 16), row * 16);
        lse[row] = clean.lse[row];
        assertSameBits(out, clean.out, label);
        assertSameBits(lse, clean.lse, label);
      }
    }
  });
}

for (const [name, call] of Object.entries(CALLS)) {
  onEachBackend(`infinity of e5m2 in v shows in its column: ${name}`, async (device) => {
    const make = () => inputsOf(call, { ...call.spec, kvDtype: "float8_e5m2" });
    const [request, token] = call.spec.batch === 1 ? [0, 60] : [1, call.shared.length > 0 ? 57 : 0];
    const hit = seenBy(make(), request, token);
    for (const [code, value] of [[0x7c, Infinity], [0xfc, -Infinity]]) {
      const poison = { part: "v", request, token, kvHead: 1, dim: 6, code } as const;
      await checkStays(device, `${name}, ${value}`, call.run, make, [poison], hit, value);
    }
  });
}

onEachBackend(
  "infinity of e5m2 in k: a logit of infinity is NaN, of -infinity no key",
  async (device) => {
    const spec: PrefillSpec = { ...MASKED, kvDtype: "float8_e5m2" };
    const [token, dim] = [40, 5];
    const values = drawPrefill(spec);
    // What meets the infinity is positive.
    for (let row = 0; row < 2 * 19 * 6; row++) values.q[row * 16 + dim] = 1;
    const hidden = Array.from({ length: 2 * 19 * 70 }, (_, i) => i % 70 !== token);
    const [plain, without] = [undefined, hidden].map((mask) =>
      runPrefill(device, makePrefill(spec, values, mask))
    );
    const expected = { [0x7c]: null, [0xfc]: (await without).out };
    for (const [code, hits] of Object.entries(expected)) {
      const inputs = makePrefill(spec, values);
      inputs.k.bytes[cacheRow(inputs.problem, 1, token, 1) + dim] = Number(code);
      const { out, lse } = await runPrefill(device, inputs);
      const clean = await plain;
      for (let i = 0; i < out.length; i++) {
        const row = Math.floor(i / 16);
        const label = `code ${code}, row ${row}`;
        if (row < 19 * 6 || row % 6 < 3) {
          assert.equal(out[i], clean.out[i], label);
          assert.equal(lse[row], clean.lse[row], label);
        } else if (hits === null) {
          assert.ok(Number.isNaN(out[i]) && Number.isNaN(lse[row]), label);
        } else {
          assert.ok(Math.abs(out[i] - hits[i]) < 1e-5, `${label}: ${out[i]}, not ${hits[i]}`);
        }
      }
    }
  },
);

onEachBackend("a last key whose logits are all -infinity is as if it were none", async (device) => {
  for (const qoLen of [1, 3]) {
    const answer = (lengths: readonly [number, number], hasLow: boolean) => {
      const spec = {
        batch: 2,
        qoLen,
        kvLen: 40,
        seqLens: lengths,
        heads: [6, 2],
        headDim: 16,
        kvDtype: "float8_e5m2",
      } as const;
      const values = drawPrefill(spec);
      values.q.fill(0.25);
      const inputs = makePrefill(spec, values);
      for (const [request, length] of hasLow ? lengths.entries() : []) {
        for (const head of [0, 1]) {
          inputs.k.bytes[cacheRow(inputs.problem, request, length - 1, head) + 3] = 0xfc;
        }
      }
      return qoLen === 1 ? runDecode(device, inputs) : runPrefill(device, inputs);
    };
    const [low, without] = [await answer([40, 1], true), await answer([39, 0], false)];
    for (const part of ["out", "lse"] as const) {
      low[part].forEach((x, i) => {
        const y = without[part][i];
        assert.ok(x === y || Math.abs(x - y) < 1e-5, `${part} ${i}: ${x}, without the key ${y}`);
      });
    }
    assert.equal(low.lse.at(-1), -Infinity);
  }
});

onEachBackend(
  "tensors and appends saturate infinity and what is too large, and keep NaN",
  async (device) => {
    const values = [NaN, Infinity, -Infinity, 3e4, -3e4, 448, 1, -0];
    const codes = {
      float8_e4m3fn: [0x7f, 0x7e, 0xfe, 0x7e, 0xfe, 0x7e, 0x38, 0x80],
      float8_e5m2: [0x7f, 0x7b, 0xfb, 0x77, 0xf7, 0x5f, 0x3c, 0x80],
    } as const;
    for (const kvDtype of Object.keys(codes) as Format[]) {
      using tensor = device.tensor(values, [8], kvDtype);
      assert.deepEqual([...await tensor.readBytes()], [...codes[kvDtype]], kvDtype);
      for (const dtype of ["float32", "float16", "bfloat16"] as const) {
        using rows = device.tensor(values, [1, 1, 8], dtype);
        using cache = device.empty([1, 2, 1, 1, 8], kvDtype);
        await appendPagedKvCache(rows, rows, [0], [0], cache, [0], [0, 1], [1]);
        const expected = [...codes[kvDtype], ...codes[kvDtype]];
        assert.deepEqual([...await cache.readBytes()], expected, `${dtype} to ${kvDtype}`);
      }
    }
  },
);
