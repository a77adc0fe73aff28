/** What must not change a prefill's answer at all, and what must change it in a known way. */

import assert from "node:assert/strict";
import { mergeState } from "@kvasir/attention";
import { assertSameAnswer, assertSameBits } from "../support/bits.ts";
import { makeInputs, runDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import {
  checkPrefill,
  drawPrefill,
  makePrefill,
  type PrefillSpec,
  type PrefillValues,
  runPrefill,
  runSinglePrefill,
} from "../support/prefill.ts";

const N = 23;
const L = 61; // prime: a stride visits every token once
const SPEC = {
  batch: 1,
  qoLen: N,
  kvLen: L,
  heads: [6, 2],
  headDim: 32,
} as const satisfies PrefillSpec;
const Q_ROW = 6 * 32;
const KV_ROW = 2 * 32;

/** Rows of `size` elements in another order, or more or fewer of them. */
function rows(x: Float32Array, size: number, sources: readonly number[]): Float32Array {
  const moved = new Float32Array(sources.length * size);
  sources.forEach((source, i) =>
    moved.set(x.subarray(source * size, (source + 1) * size), i * size)
  );
  return moved;
}

function range(length: number, of: (i: number) => number = (i) => i): number[] {
  return Array.from({ length }, (_, i) => of(i));
}

/** The same queries over other keys. */
function withTokens(values: PrefillValues, sources: readonly number[]): PrefillValues {
  return { q: values.q, k: rows(values.k, KV_ROW, sources), v: rows(values.v, KV_ROW, sources) };
}

function assertNear(got: Float32Array, expected: ArrayLike<number>, label: string, bound = 4e-6) {
  got.forEach((x, i) => {
    const isNear = x === expected[i] || Math.abs(x - expected[i]) < bound;
    assert.ok(isNear, `${label}, ${i}: ${x}, not ${expected[i]}`);
  });
}

onEachBackend("prefill: run again, the same bits", async (device) => {
  for (const causal of [true, false]) {
    const inputs = makePrefill({ ...SPEC, causal });
    const first = await runPrefill(device, inputs);
    for (let i = 0; i < 20; i++) {
      assertSameAnswer(await runPrefill(device, inputs), first, `run ${i + 2}`);
    }
  }
});

onEachBackend("prefill: single is a batch of one, both layouts", async (device) => {
  for (const kvLayout of ["NHD", "HND"] as const) {
    const inputs = makePrefill({ ...SPEC, kvLayout, causal: true });
    const single = await runSinglePrefill(device, inputs);
    assertSameAnswer(single, await runPrefill(device, inputs), kvLayout);
  }
});

onEachBackend("prefill: HND has the bits of NHD", async (device) => {
  const values = drawPrefill(SPEC);
  const swapped = range(2 * L, (i) => (i % L) * 2 + Math.floor(i / L));
  const hnd = {
    q: values.q,
    k: rows(values.k, 32, swapped),
    v: rows(values.v, 32, swapped),
  };
  const nhd = await runPrefill(device, makePrefill({ ...SPEC, causal: true }, values));
  const inputs = makePrefill({ ...SPEC, causal: true, kvLayout: "HND" }, hnd);
  assertSameAnswer(await runPrefill(device, inputs), nhd, "HND");
});

onEachBackend("prefill: padding does not change the bits", async (device) => {
  const values = drawPrefill(SPEC);
  const tight = await runPrefill(device, makePrefill({ ...SPEC, causal: true }, values));
  const loose = {
    ...withTokens(values, range(L + 50, (i) => Math.min(i, L - 1))),
    q: rows(values.q, Q_ROW, range(N + 20, (i) => Math.min(i, N - 1))),
  };
  const spec = { ...SPEC, qoLen: N + 20, kvLen: L + 50, qoLens: [N], seqLens: [L], causal: true };
  const { out, lse } = await runPrefill(device, makePrefill(spec, loose));
  assertSameBits(out.subarray(0, N * Q_ROW), tight.out, "out");
  assertSameBits(lse.subarray(0, N * 6), tight.lse, "lse");
});

onEachBackend("prefill: a batch has the bits of its requests alone", async (device) => {
  const spec: PrefillSpec = {
    ...SPEC,
    batch: 3,
    qoLens: [N, 4, 17],
    seqLens: [40, L, 9],
    causal: true,
  };
  const values = drawPrefill(spec);
  const joined = await runPrefill(device, makePrefill(spec, values));
  for (let request = 0; request < 3; request++) {
    const part = (x: Float32Array, size: number) => x.slice(request * size, (request + 1) * size);
    const alone = makePrefill({
      ...spec,
      batch: 1,
      qoLens: [spec.qoLens![request]],
      seqLens: [spec.seqLens![request]],
    }, {
      q: part(values.q, N * Q_ROW),
      k: part(values.k, L * KV_ROW),
      v: part(values.v, L * KV_ROW),
    });
    assertSameAnswer(await runPrefill(device, alone), {
      out: part(joined.out, N * Q_ROW),
      lse: part(joined.lse, N * 6),
    }, `request ${request}`);
  }
});

onEachBackend("prefill: causal queries see what queries at an end see", async (device) => {
  const values = drawPrefill(SPEC);
  const whole = await runPrefill(device, makePrefill({ ...SPEC, causal: true }, values));
  for (const count of [1, 2, 16, N - 1]) {
    const kvLen = L - N + count;
    const spec = { ...SPEC, qoLen: count, kvLen, causal: true };
    const start = {
      q: values.q.slice(0, count * Q_ROW),
      k: values.k.slice(0, kvLen * KV_ROW),
      v: values.v.slice(0, kvLen * KV_ROW),
    };
    const { out, lse } = await runPrefill(device, makePrefill(spec, start));
    assertNear(out, whole.out.subarray(0, count * Q_ROW), `out of ${count}`);
    assertNear(lse, whole.lse.subarray(0, count * 6), `lse of ${count}`);
  }
});

onEachBackend("prefill: one query is decode", async (device) => {
  const values = drawPrefill({ ...SPEC, qoLen: 1 });
  for (const causal of [true, false]) {
    const spec = { ...SPEC, qoLen: 1, causal };
    const prefill = await runPrefill(device, makePrefill(spec, values));
    const decode = await runDecode(device, makeInputs(SPEC, values));
    assertNear(prefill.out, decode.out, "out");
    assertNear(prefill.lse, decode.lse, "lse");
  }
});

onEachBackend("prefill: V times a power of two gives out times it, exactly", async (device) => {
  const values = drawPrefill(SPEC);
  const spec = { ...SPEC, causal: true };
  const plain = await runPrefill(device, makePrefill(spec, values));
  for (const factor of [2 ** 10, 2 ** -10]) {
    const scaled = { ...values, v: values.v.map((x) => x * factor) };
    const { out, lse } = await runPrefill(device, makePrefill(spec, scaled));
    assertSameBits(out, plain.out.map((x) => x * factor), `V times ${factor}`);
    assertSameBits(lse, plain.lse, `lse with V times ${factor}`);
    const viaScale = await runPrefill(device, makePrefill({ ...spec, vScale: factor }, values));
    assertSameBits(viaScale.out, out, `vScale ${factor}`);
  }
});

onEachBackend(
  "prefill: the order of the keys does not matter where all are seen",
  async (device) => {
    const values = drawPrefill(SPEC);
    const shuffled = withTokens(values, range(L, (t) => (t * 29 + 5) % L));
    const original = await checkPrefill(device, "in order", makePrefill(SPEC, values));
    const other = await checkPrefill(device, "shuffled", makePrefill(SPEC, shuffled));
    assertNear(other.out, original.out, "out");
    assertNear(other.lse, original.lse, "lse");
  },
);

onEachBackend("prefill: keys given twice leave out, and add 1 to lse", async (device) => {
  const values = drawPrefill(SPEC);
  const once = await runPrefill(device, makePrefill(SPEC, values));
  const twice = withTokens(values, range(2 * L, (t) => t % L));
  const both = await runPrefill(device, makePrefill({ ...SPEC, kvLen: 2 * L }, twice));
  assertNear(both.out, once.out, "out");
  assertNear(both.lse, once.lse.map((x) => x + 1), "lse");
});

onEachBackend("prefill: equal values come out as they are", async (device) => {
  const values = drawPrefill(SPEC);
  values.v.fill(1.25);
  const { out } = await runPrefill(device, makePrefill({ ...SPEC, causal: true }, values));
  out.forEach((x) => assert.ok(Math.abs(x - 1.25) < 1e-6, `${x}`));
});

onEachBackend("prefill: parts of the keys, merged, are the whole", async (device) => {
  const values = drawPrefill(SPEC);
  const whole = await runPrefill(device, makePrefill({ ...SPEC, causal: true }, values));
  // Every query sees the first keys whole: only the last N are cut by their positions.
  const cut = L - N;
  const part = async (first: number, count: number, causal: boolean) => {
    const tokens = withTokens(values, range(count, (t) => first + t));
    return await runPrefill(device, makePrefill({ ...SPEC, kvLen: count, causal }, tokens));
  };
  const [a, b] = [await part(0, cut, false), await part(cut, N, true)];
  using vA = device.tensor(a.out, [N, 6, 32], "float32");
  using sA = device.tensor(a.lse, [N, 6], "float32");
  using vB = device.tensor(b.out, [N, 6, 32], "float32");
  using sB = device.tensor(b.lse, [N, 6], "float32");
  const merged = await mergeState(vA, sA, vB, sB);
  using out = merged.out;
  using lse = merged.lse;
  assertNear(await out.read(), whole.out, "out");
  assertNear(await lse.read(), whole.lse, "lse");
});
