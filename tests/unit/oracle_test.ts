/** The float64 oracle, on cases whose answers are known without it. */

import assert from "node:assert/strict";
import { type AttentionCase, cacheRow, oracle, plainFloat32 } from "../support/oracle.ts";
import { rotate, slopesOf } from "../support/positions.ts";
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

Deno.test("oracle: a window leaves the last keys", () => {
  const c = randomCase({ kvLens: [5, 3] });
  const windowed = oracle({ ...c, windowLeft: 1 });
  // Request 1 stands at key 2: it sees keys 1 and 2.
  const tail = (x: ArrayLike<number>) => Array.from(x).slice(40 + 8, 40 + 24);
  const last = oracle({
    ...c,
    numRequests: 1,
    maxKvLen: 2,
    kvLens: [2],
    q: Array.from(c.q).slice(24),
    k: tail(c.k),
    v: tail(c.v),
  });
  assertClose(windowed.out.subarray(24), last.out);
  assertClose(windowed.lse.subarray(6), last.lse);
  const { out, lse } = oracle({ ...c, windowLeft: 0 });
  assert.deepEqual([...out.subarray(0, 4)], valueRow(c, 0, 4, 0));
  assert.ok(lse.every(Number.isFinite));
  assert.deepEqual(oracle({ ...c, windowLeft: 4 }), oracle({ ...c, windowLeft: -1 }));
});

/** Three keys of logits 0, ln 2 and ln 5, whose values are 8, 16 and 24. */
const BY_HAND = {
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
} as const;

Deno.test("oracle: a sink takes its share of the denominator, and nothing else", () => {
  const { out, lse } = oracle({ ...BY_HAND, sinks: [Math.log(8)] });
  assertClose(out, [(1 * 8 + 2 * 16 + 5 * 24) / 16]);
  assertClose(lse, [4]);
  assertClose(oracle({ ...BY_HAND, smScale: 0, sinks: [0] }).lse, [2]);
  const empty = oracle({ ...BY_HAND, kvLens: [0], sinks: [Math.log(8)] });
  assert.deepEqual([...empty.out], [0]);
  assertClose(empty.lse, [3]);
});

Deno.test("oracle: a soft cap by hand", () => {
  // atanh(x / 2) · 2 becomes x under a cap of 2.
  const k = [0, Math.log(2), Math.log(3)].map((x) => 2 * Math.atanh(x / 2));
  const { out, lse } = oracle({ ...BY_HAND, k, logitsSoftCap: 2 });
  assertClose(out, [(1 * 8 + 2 * 16 + 3 * 24) / 6]);
  assertClose(lse, [Math.log2(6)]);
});

Deno.test("oracle: lse in natural logarithms", () => {
  assertClose(oracle({ ...BY_HAND, lseBase: "ln" }).lse, [Math.log(8)]);
});

Deno.test("oracle: ALiBi's slopes are those of its paper", () => {
  const powers = (exponents: number[]) => exponents.map((x) => 2 ** -x);
  assertClose(slopesOf(8), powers([1, 2, 3, 4, 5, 6, 7, 8]), 1e-15);
  assertClose(slopesOf(4), powers([2, 4, 6, 8]), 1e-15);
  assertClose(slopesOf(1), powers([8]), 1e-15);
  // The reference implementation's answer for 12 heads.
  assertClose(slopesOf(12), powers([1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]), 1e-15);
});

Deno.test("oracle: ALiBi by hand", () => {
  // One head has a slope of 2^-8; the keys stand 2, 1 and 0 before the query.
  const k = BY_HAND.k.map((x, i) => x + (2 - i) / 256);
  const { out, lse } = oracle({ ...BY_HAND, k, posEncodingMode: "ALIBI" });
  assertClose(out, [(1 * 8 + 2 * 16 + 5 * 24) / 8]);
  assertClose(lse, [3]);
});

Deno.test("oracle: rotation turns points, keeps lengths, and only distance counts", () => {
  const speed = { scale: 2, theta: 100 };
  const same = (x: number) => x;
  const quarter = rotate([1, 0, 0, 0], Math.PI, speed, same);
  assertClose(quarter, [0, 0, 1, 0]);
  // The second pair turns theta^(-1/2) = a tenth as fast.
  assertClose(rotate([0, 1, 0, 0], 10 * Math.PI, speed, same), [0, 0, 0, 1]);
  const [a, b] = [[0.3, -1, 2, 0.7], [1, 0.5, -0.2, 3]];
  const dot = (x: ArrayLike<number>, y: ArrayLike<number>) =>
    Array.from(x).reduce((sum, value, i) => sum + value * y[i], 0);
  const near = dot(rotate(a, 7, speed, same), rotate(b, 3, speed, same));
  assertClose([dot(rotate(a, 1007, speed, same), rotate(b, 1003, speed, same))], [near], 1e-11);
  assertClose([dot(rotate(a, 5, speed, same), rotate(a, 5, speed, same))], [dot(a, a)]);
});

Deno.test("oracle: scales by head are factors of each head's rows", () => {
  const c = randomCase();
  const scaled = oracle({
    ...c,
    qScale: [1, 2, 3, 4, 5, 6],
    kScale: [0.5, 0.25],
    vScale: [3, -1],
  });
  const plain = oracle({
    ...c,
    q: Array.from(c.q, (x, i) => x * (1 + Math.floor(i / 4) % 6)),
    k: Array.from(c.k, (x, i) => x * [0.5, 0.25][Math.floor(i / 4) % 2]),
    v: Array.from(c.v, (x, i) => x * [3, -1][Math.floor(i / 4) % 2]),
  });
  assertClose(scaled.out, plain.out, 1e-12);
  assertClose(scaled.lse, plain.lse, 1e-12);
});

/** Rows [request, query, ...] of a result. */
function rowOf(
  x: ArrayLike<number>,
  c: AttentionCase,
  request: number,
  query: number,
  size: number,
) {
  const start = (request * (c.numQueries ?? 1) + query) * size;
  return Array.from(x).slice(start, start + size);
}

Deno.test("oracle: requests of fewer queries end at their last key all the same", () => {
  const c = randomCase({ numQueries: 3, qoLens: [2, 0], causal: true, kvLens: [4, 5] });
  const { out, lse } = oracle(c);
  const short = oracle({ ...c, numQueries: 2, qoLens: undefined, q: Array.from(c.q).slice(0, 96) });
  for (const query of [0, 1]) {
    assert.deepEqual(rowOf(out, c, 0, query, 24), [...short.out.subarray(query * 24).slice(0, 24)]);
    assert.deepEqual(rowOf(lse, c, 0, query, 6), [...short.lse.subarray(query * 6).slice(0, 6)]);
  }
  assert.ok(rowOf(out, c, 0, 2, 24).every((x) => Object.is(x, 0)));
  assert.ok([...lse.subarray(12)].every((x) => x === -Infinity));
});

Deno.test("oracle: more queries than keys leave the first ones nothing", () => {
  const c = randomCase({ numQueries: 4, kvLens: [2, 3], causal: true });
  const { out, lse } = oracle(c);
  for (const [request, kvLen] of [2, 3].entries()) {
    for (let query = 0; query < 4; query++) {
      const isEmpty = query < 4 - kvLen;
      assert.ok(rowOf(out, c, request, query, 24).every((x) => (x === 0) === isEmpty));
      assert.ok(rowOf(lse, c, request, query, 6).every((x) => (x === -Infinity) === isEmpty));
    }
    // The first that sees anything sees the first key.
    const first = rowOf(out, c, request, 4 - kvLen, 24);
    for (let head = 0; head < 6; head++) {
      assertClose(first.slice(head * 4, head * 4 + 4), valueRow(c, request, 0, head));
    }
  }
});

Deno.test("oracle: a mask takes the place of causal, and windows take from it", () => {
  const c = randomCase({ numQueries: 3, kvLens: [5, 4] });
  const triangle = (fewer: number) =>
    [5, 4].flatMap((kvLen) =>
      [0, 1, 2].flatMap((i) =>
        [0, 1, 2, 3, 4].map((j) => j <= i + kvLen - 3 && j >= i + kvLen - 3 - fewer)
      )
    );
  const causal = oracle({ ...c, causal: true });
  assert.deepEqual(oracle({ ...c, mask: triangle(9) }), causal);
  assert.deepEqual(oracle({ ...c, mask: triangle(9), causal: true }), causal);
  const band = oracle({ ...c, causal: true, windowLeft: 1 });
  assert.deepEqual(oracle({ ...c, mask: triangle(1) }), band);
  assert.deepEqual(oracle({ ...c, mask: triangle(9), windowLeft: 1 }), band);
  assert.deepEqual(oracle({ ...c, mask: triangle(9).fill(true), causal: true }), oracle(c));
  const none = oracle({ ...c, mask: triangle(9).fill(false) });
  assert.ok(none.out.every((x) => x === 0) && none.lse.every((x) => x === -Infinity));
});

Deno.test("oracle: v may have a head dim of its own", () => {
  const c = randomCase({ numQueries: 2, causal: true });
  const whole = oracle(c);
  const cut = (dims: readonly number[]) => {
    const v = Array.from(c.v).filter((_, i) => dims.includes(i % 4));
    return oracle({ ...c, headDimV: dims.length, v });
  };
  for (const dims of [[0], [1, 3], [0, 1, 2, 3]]) {
    const { out, lse } = cut(dims);
    assert.deepEqual([...out], [...whole.out].filter((_, i) => dims.includes(i % 4)));
    assert.deepEqual(lse, whole.lse);
  }
});
