/** Merging states: against float64, and what merging must keep: parts are the whole. */

import assert from "node:assert/strict";
import {
  type AttentionWithLse,
  type Device,
  type DType,
  mergeState,
  mergeStateInPlace,
  mergeStates,
  type Tensor,
} from "@kvasir/attention";
import { type DecodeSpec, makeInputs, runDecode } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { roundTo } from "../support/formats.ts";
import { goldenArrays } from "../support/golden.ts";
import { store } from "../support/storage.ts";
import { goldenValues, normals } from "../support/values.ts";

/** A state on the host: v [n, H, D], s [n, H]. */
interface State {
  readonly v: ArrayLike<number>;
  readonly s: ArrayLike<number>;
}

/** The merge of states by the definition, in float64. */
function merged(
  states: readonly State[],
  headDim: number,
): { out: Float64Array; lse: Float64Array } {
  const rows = states[0].s.length;
  const out = new Float64Array(rows * headDim);
  const lse = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const max = Math.max(...states.map(({ s }) => s[row]));
    let sum = 0;
    for (const { v, s } of states) {
      if (s[row] === -Infinity) continue;
      const weight = 2 ** (s[row] - max);
      sum += weight;
      for (let d = 0; d < headDim; d++) out[row * headDim + d] += weight * v[row * headDim + d];
    }
    lse[row] = sum === 0 ? -Infinity : max + Math.log2(sum);
    for (let d = 0; d < headDim; d++) out[row * headDim + d] /= sum || 1;
  }
  return { out, lse };
}

/** Reads a result, and frees it. */
async function taken(result: AttentionWithLse): Promise<{ out: Float32Array; lse: Float32Array }> {
  using out = result.out;
  using lse = result.lse;
  return { out: await out.read(), lse: await lse.read() };
}

/** Runs `work` over tensors of states, which are freed after it. */
async function withStates<T>(
  device: Device,
  shape: readonly [n: number, heads: number, headDim: number],
  states: readonly State[],
  work: (tensors: Tensor[]) => Promise<T>,
  dtype: DType = "float32",
): Promise<T> {
  const tensors = states.flatMap(({ v, s }) => [
    device.tensor(v, shape, dtype),
    device.tensor(s, shape.slice(0, 2), "float32"),
  ]);
  try {
    return await work(tensors);
  } finally {
    for (const tensor of tensors) tensor.destroy();
  }
}

function assertNear(
  label: string,
  got: ArrayLike<number>,
  wanted: ArrayLike<number>,
  bound: number,
) {
  assert.equal(got.length, wanted.length, label);
  for (let i = 0; i < got.length; i++) {
    if (got[i] === wanted[i]) continue;
    assert.ok(Math.abs(got[i] - wanted[i]) <= bound, `${label} ${i}: ${got[i]}, not ${wanted[i]}`);
  }
}

const SHAPE = [5, 3, 40] as const;
const draw = (seed: number): State => ({
  v: normals(5 * 3 * 40, seed),
  s: normals(5 * 3, seed + 1000).map((x) => 8 * x),
});
const EMPTY: State = {
  v: new Float32Array(600).fill(NaN),
  s: new Float32Array(15).fill(-Infinity),
};

for (const dtype of ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const) {
  onEachBackend(`mergeState() of ${dtype} is the weighted mean`, async (device) => {
    const stored = [draw(1), draw(2)].map(({ v, s }) => ({
      v: store(Float32Array.from(v), dtype).values,
      s,
    }));
    const exact = merged(stored, 40);
    const got = await withStates(
      device,
      SHAPE,
      stored,
      async ([a, b, c, d]) => taken(await mergeState(a, b, c, d)),
      dtype,
    );
    for (let i = 0; i < got.out.length; i++) {
      const [low, high] = [exact.out[i] - 1e-6, exact.out[i] + 1e-6].map((x) => roundTo(x, dtype));
      assert.ok(
        low <= got.out[i] && got.out[i] <= high,
        `${i}: ${got.out[i]}, not ${exact.out[i]}`,
      );
    }
    assertNear("lse", got.lse, exact.lse, 4e-6);
  });
}

onEachBackend(
  "mergeStates() merges any number of states, empty ones among them",
  async (device) => {
    for (const count of [1, 2, 5, 37, 130]) {
      const [n, heads, headDim] = [3, 2, 64];
      const v = normals(n * count * heads * headDim, count);
      const s = normals(n * count * heads, count + 1).map((x, i) =>
        i % 5 === 3 ? -Infinity : 6 * x
      );
      const states = Array.from({ length: count }, (_, state): State => ({
        v: Float32Array.from({ length: n * heads * headDim }, (_, i) => {
          const row = Math.floor(i / (heads * headDim));
          return v[(row * count + state) * heads * headDim + i % (heads * headDim)];
        }),
        s: Float32Array.from(
          { length: n * heads },
          (_, i) => s[(Math.floor(i / heads) * count + state) * heads + i % heads],
        ),
      }));
      const exact = merged(states, headDim);
      using vTensor = device.tensor(v, [n, count, heads, headDim], "float32");
      using sTensor = device.tensor(s, [n, count, heads], "float32");
      const got = await taken(await mergeStates(vTensor, sTensor));
      assertNear(`${count} states: out`, got.out, exact.out, 2e-6);
      assertNear(`${count} states: lse`, got.lse, exact.lse, 4e-6);
    }
  },
);

onEachBackend("merging commutes, associates, and has an exact identity", async (device) => {
  const [a, b, c] = [draw(1), draw(2), draw(3)];
  const merge = (x: State, y: State) =>
    withStates(device, SHAPE, [x, y], async ([v1, s1, v2, s2]) => {
      const { out, lse } = await taken(await mergeState(v1, s1, v2, s2));
      return { v: out, s: lse };
    });
  const [ab, ba] = [await merge(a, b), await merge(b, a)];
  assertNear("commutes: v", ab.v, ba.v, 1e-6);
  assertNear("commutes: s", ab.s, ba.s, 4e-6);
  const [left, right] = [await merge(ab, c), await merge(a, await merge(b, c))];
  assertNear("associates: v", left.v, right.v, 2e-6);
  assertNear("associates: s", left.s, right.s, 8e-6);
  for (const same of [await merge(a, EMPTY), await merge(EMPTY, a)]) {
    assert.deepEqual(same.v, Float32Array.from(a.v), "the empty state changes nothing");
    assert.deepEqual(same.s, Float32Array.from(a.s));
  }
  const none = await merge(EMPTY, EMPTY);
  assert.deepEqual(new Set(none.v), new Set([0]));
  assert.deepEqual(new Set(none.s), new Set([-Infinity]));
});

onEachBackend("a state's NaN stays in its row and head", async (device) => {
  const [a, b] = [draw(1), draw(2)];
  const clean = merged([a, b], 40);
  const v = Float32Array.from(a.v);
  v[7 * 40 + 3] = NaN;
  const s = Float32Array.from(b.s);
  s[2] = NaN;
  const got = await withStates(
    device,
    SHAPE,
    [{ v, s: a.s }, { v: b.v, s }],
    async ([v1, s1, v2, s2]) => taken(await mergeState(v1, s1, v2, s2)),
  );
  got.out.forEach((x, i) => {
    const isHit = i === 7 * 40 + 3 || Math.floor(i / 40) === 2;
    if (isHit) assert.ok(Number.isNaN(x), `out ${i}`);
    else assert.ok(Math.abs(x - clean.out[i]) < 1e-5, `out ${i}`);
  });
  got.lse.forEach((x, i) => assert.equal(Number.isNaN(x), i === 2, `lse ${i}`));
});

onEachBackend(
  "mergeStateInPlace() merges the rows of its mask, and leaves the others",
  async (device) => {
    const [a, b] = [draw(1), draw(2)];
    const exact = merged([a, b], 40);
    const mask = [true, false, true, true, false];
    await withStates(device, SHAPE, [a, b], async ([v, s, vOther, sOther]) => {
      await mergeStateInPlace(v, s, vOther, sOther, { mask });
      const [got, gotS] = [await v.read(), await s.read()];
      mask.forEach((isMerged, row) => {
        const [values, sums] = [
          got.subarray(row * 120, row * 120 + 120),
          gotS.subarray(3 * row, 3 * row + 3),
        ];
        if (isMerged) {
          assertNear("v", values, exact.out.subarray(row * 120, row * 120 + 120), 2e-6);
          assertNear("s", sums, exact.lse.subarray(3 * row, 3 * row + 3), 4e-6);
        } else {
          assert.deepEqual(values, Float32Array.from(a.v).subarray(row * 120, row * 120 + 120));
          assert.deepEqual(sums, Float32Array.from(a.s).subarray(3 * row, 3 * row + 3));
        }
      });
      assert.deepEqual(
        await vOther.read(),
        Float32Array.from(b.v),
        "the other state is not changed",
      );
    });
  },
);

onEachBackend("attention over parts of the keys merges to attention over all", async (device) => {
  const whole: DecodeSpec = { kvLen: 90, heads: [6, 2], headDim: 40 };
  const inputs = makeInputs(whole);
  const expected = await runDecode(device, inputs);
  const row = 2 * 40;
  for (const cuts of [[0, 45, 90], [0, 1, 90], [0, 13, 50, 51, 90]]) {
    const states: State[] = [];
    for (let i = 0; i + 1 < cuts.length; i++) {
      const [first, end] = [cuts[i], cuts[i + 1]];
      const part = (values: Float32Array) => values.slice(first * row, end * row);
      const { out, lse } = await runDecode(
        device,
        makeInputs({ ...whole, kvLen: end - first }, {
          q: Float32Array.from(inputs.problem.q),
          k: part(Float32Array.from(inputs.problem.k)),
          v: part(Float32Array.from(inputs.problem.v)),
        }),
      );
      states.push({ v: out, s: lse });
    }
    let state = states[0];
    for (const next of states.slice(1)) {
      state = await withStates(device, [1, 6, 40], [state, next], async ([v1, s1, v2, s2]) => {
        const { out, lse } = await taken(await mergeState(v1, s1, v2, s2));
        return { v: out, s: lse };
      });
    }
    assertNear(`${cuts}: out`, state.v, expected.out, 2e-6);
    assertNear(`${cuts}: lse`, state.s, expected.lse, 4e-6);
  }
});

onEachBackend("golden: batch_prefill/merge-state", async (device) => {
  const [n, heads, headDim] = [11, 6, 128];
  const theirs = goldenArrays("batch_prefill/merge-state");
  const sums = (seed: number) => goldenValues(n * heads, seed).map((x) => 8 * x);
  const states = [
    { v: goldenValues(n * heads * headDim, 1), s: sums(3) },
    { v: goldenValues(n * heads * headDim, 2), s: sums(4) },
  ];
  const got = await withStates(
    device,
    [n, heads, headDim],
    states,
    async ([v1, s1, v2, s2]) => taken(await mergeState(v1, s1, v2, s2)),
    "float16",
  );
  assertNear("out", got.out, theirs.out, 9.8e-4); // both round once to float16, at most 2
  assertNear("lse", got.lse, theirs.lse, 4e-6);
});
