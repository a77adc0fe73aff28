/** The float64 oracle, on cases whose answers are known without it. */

import assert from "node:assert/strict";
import { type AttentionCase, cacheRow, oracle, plainFloat32 } from "../support/oracle.ts";
import { normals } from "../support/values.ts";

const SIZES = {
  numRequests: 2,
  numQoHeads: 6,
  numKvHeads: 2,
  headDim: 4,
  maxKvLen: 5,
  kvLayout: "NHD",
} as const;

function randomCase(extra: Partial<AttentionCase> = {}): AttentionCase {
  const sizes = { ...SIZES, ...extra };
  const cache = sizes.numRequests * sizes.maxKvLen * sizes.numKvHeads * sizes.headDim;
  const queries = sizes.numRequests * (sizes.numQueries ?? 1) * sizes.numQoHeads * sizes.headDim;
  return {
    q: normals(queries, 1),
    k: normals(cache, 2),
    v: normals(cache, 3),
    ...sizes,
  };
}

function assertClose(got: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-13) {
  assert.equal(got.length, expected.length);
  for (let i = 0; i < got.length; i++) {
    assert.ok(Math.abs(got[i] - expected[i]) <= tolerance, `${i}: ${got[i]}, not ${expected[i]}`);
  }
}

/** v's row for a query head. */
function valueRow(c: AttentionCase, request: number, token: number, head: number): number[] {
  const start = cacheRow(c, request, token, Math.floor(head / (c.numQoHeads / c.numKvHeads)));
  return Array.from({ length: c.headDim }, (_, d) => c.v[start + d]);
}

Deno.test("oracle: one key gives exactly its value, and its logit as lse", () => {
  const c = randomCase({ kvLens: [1, 1] });
  const { out, lse } = oracle(c);
  for (let row = 0; row < 12; row++) {
    const request = Math.floor(row / 6);
    assert.deepEqual([...out.subarray(row * 4, row * 4 + 4)], valueRow(c, request, 0, row % 6));
    const key = cacheRow(c, request, 0, Math.floor((row % 6) / 3));
    let dot = 0;
    for (let d = 0; d < 4; d++) dot += c.q[row * 4 + d] * c.k[key + d];
    assertClose([lse[row]], [dot / 2 / Math.LN2]);
  }
});

Deno.test("oracle: equal logits give the mean of the values", () => {
  const c = randomCase({ q: new Float32Array(48) });
  const { out, lse } = oracle(c);
  for (let row = 0; row < 12; row++) {
    const rows = [0, 1, 2, 3, 4].map((token) => valueRow(c, Math.floor(row / 6), token, row % 6));
    const mean = [0, 1, 2, 3].map((d) => rows.reduce((sum, v) => sum + v[d], 0) / 5);
    assertClose(out.subarray(row * 4, row * 4 + 4), mean);
    assertClose([lse[row]], [Math.log2(5)]);
  }
});

Deno.test("oracle: a softmax that can be done by hand", () => {
  const { out, lse } = oracle({
    numRequests: 1,
    numQoHeads: 1,
    numKvHeads: 1,
    headDim: 1,
    maxKvLen: 3,
    kvLayout: "NHD",
    smScale: 1,
    q: [1],
    k: [0, Math.log(2), Math.log(5)],
    v: [8, 16, 24],
  });
  assertClose(out, [(1 * 8 + 2 * 16 + 5 * 24) / 8]);
  assertClose(lse, [3]);
});

Deno.test("oracle: keys given twice leave out as it is and add 1 to lse", () => {
  const once = randomCase();
  const twice = (x: ArrayLike<number>) => {
    const half = x.length / 2; // a request
    const all = Array.from(x);
    return [0, 1].flatMap((b) => {
      const request = all.slice(b * half, (b + 1) * half);
      return [...request, ...request];
    });
  };
  const a = oracle(once);
  const b = oracle({ ...once, maxKvLen: 10, k: twice(once.k), v: twice(once.v) });
  assertClose(b.out, a.out);
  assertClose(b.lse, a.lse.map((x) => x + 1));
});

Deno.test("oracle: HND is NHD in another order", () => {
  const nhd = randomCase();
  const swap = (x: ArrayLike<number>) => {
    const swapped = new Float64Array(x.length);
    for (let b = 0; b < 2; b++) {
      for (let t = 0; t < 5; t++) {
        for (let h = 0; h < 2; h++) {
          for (let d = 0; d < 4; d++) {
            swapped[((b * 2 + h) * 5 + t) * 4 + d] = x[((b * 5 + t) * 2 + h) * 4 + d];
          }
        }
      }
    }
    return swapped;
  };
  assert.deepEqual(
    oracle({ ...nhd, kvLayout: "HND", k: swap(nhd.k), v: swap(nhd.v) }),
    oracle(nhd),
  );
});

Deno.test("oracle: lengths hide the tokens behind them, and no key gives 0 and -Infinity", () => {
  const c = randomCase();
  const poisoned = { ...c, k: Array.from(c.k), v: Array.from(c.v), kvLens: [0, 3] };
  for (let i = 0; i < 40; i++) poisoned.k[i] = poisoned.v[i] = NaN;
  for (let i = 40 + 3 * 8; i < 80; i++) poisoned.k[i] = poisoned.v[i] = NaN;
  const { out, lse } = oracle(poisoned);
  assert.ok(out.subarray(0, 24).every((x) => x === 0));
  assert.ok(lse.subarray(0, 6).every((x) => x === -Infinity));
  assert.ok(out.subarray(24).every((x) => x !== 0 && Number.isFinite(x)));
  assert.ok(lse.subarray(6).every(Number.isFinite));
});

Deno.test("oracle: causal rows see what decoding with their length sees", () => {
  const c = randomCase({ numQueries: 3, causal: true });
  const { out, lse } = oracle(c);
  for (let query = 0; query < 3; query++) {
    const pick = (x: ArrayLike<number>, size: number) =>
      [0, 1].flatMap((b) => Array.from({ length: size }, (_, i) => x[(b * 3 + query) * size + i]));
    const decode = oracle({
      ...c,
      numQueries: 1,
      causal: false,
      q: pick(c.q, 24),
      kvLens: [3 + query, 3 + query],
    });
    assert.deepEqual(pick(out, 24), [...decode.out]);
    assert.deepEqual(pick(lse, 6), [...decode.lse]);
  }
});

Deno.test("oracle: scales are factors of keys and values", () => {
  const c = randomCase();
  const scaled = oracle({ ...c, smScale: 0.5, kScale: 0.25, vScale: 4 });
  const plain = oracle({
    ...c,
    smScale: 0.5,
    k: Array.from(c.k, (x) => x * 0.25),
    v: Array.from(c.v, (x) => x * 4),
  });
  assertClose(scaled.out, plain.out);
  assertClose(scaled.lse, plain.lse);
});

Deno.test("oracle: plain float32 is near float64, and is not float64", () => {
  const c = randomCase({ maxKvLen: 100 });
  const exact = oracle(c);
  const plain = plainFloat32(c);
  assertClose(plain.out, exact.out, 1e-5);
  assertClose(plain.lse, exact.lse, 1e-5);
  assert.notDeepEqual(plain, exact);
  assert.deepEqual(plain.out, Float64Array.from(Float32Array.from(plain.out)));
});
