/** Merging states against float64, and what must hold of it whatever the numbers. */

import assert from "node:assert/strict";
import { type Device, mergeState, mergeStateInPlace, type Tensor } from "@kvasir/attention";
import { assertSameAnswer, assertSameBits } from "../support/bits.ts";
import type { DecodeAnswer } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import {
  drawStates,
  type MergeCase,
  mergedStates,
  mergeMiss,
  type MergeSpec,
  readState,
  runMergeStates,
  stateOf,
} from "../support/merge.ts";
import { fillWithNan, store } from "../support/storage.ts";

const DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const;
const PAIR: MergeSpec = { rows: 5, states: 2, heads: 3, headDim: 16 };

/** A case of one state a row, as tensors [rows, heads, headDim] and [rows, heads]. */
function tensorsOf(device: Device, c: MergeCase): { v: Tensor; s: Tensor } & Disposable {
  const v = device.tensorFromBytes(c.v.bytes, [c.rows, c.heads, c.headDim], c.v.dtype);
  const s = device.tensor(c.s, [c.rows, c.heads], "float32");
  return {
    v,
    s,
    [Symbol.dispose]() {
      v.destroy();
      s.destroy();
    },
  };
}

/** Merges two cases of one state a row. */
async function runMergeState(device: Device, a: MergeCase, b: MergeCase): Promise<DecodeAnswer> {
  using x = tensorsOf(device, a);
  using y = tensorsOf(device, b);
  return await readState(await mergeState(x.v, x.s, y.v, y.s));
}

/** An answer as a case that can be merged again. */
function asCase(like: MergeCase, answer: DecodeAnswer): MergeCase {
  return { ...like, states: 1, v: store(answer.out, like.v.dtype), s: answer.lse };
}

async function checkMerge(device: Device, spec: MergeSpec) {
  const c = drawStates(spec);
  assert.equal(mergeMiss(c, await runMergeStates(device, c)), null, JSON.stringify(spec));
}

onEachBackend("mergeStates() is the merge in float64, over dtypes", async (device) => {
  for (const dtype of DTYPES) {
    await checkMerge(device, { rows: 3, states: 5, heads: 4, headDim: 64, dtype });
    await checkMerge(device, { rows: 2, states: 40, heads: 3, headDim: 24, dtype, empty: 0.3 });
  }
});

onEachBackend("mergeStates() takes any number of states, empty ones among them", async (device) => {
  for (const states of [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 127, 128, 129, 300]) {
    for (const empty of [0, 0.5, 1]) {
      await checkMerge(device, { rows: 3, states, heads: 2, headDim: 8, empty, seed: states + 1 });
    }
  }
  // More than all lanes of a workgroup hold at once.
  for (const [states, headDim] of [[65, 64], [130, 64], [300, 64], [129, 512]]) {
    await checkMerge(device, { rows: 2, states, heads: 2, headDim, empty: 0.2, range: 60 });
  }
});

onEachBackend("mergeStates() takes any number of rows, heads and dims", async (device) => {
  const sizes = [[1, 1, 8], [300, 1, 4], [1, 77, 16], [2, 3, 40], [3, 2, 56], [1, 2, 80]]
    .concat([[2, 1, 96], [1, 3, 112], [1, 1, 224], [2, 2, 256], [1, 3, 512], [70, 40, 8]]);
  for (const [rows, heads, headDim] of sizes) {
    await checkMerge(device, { rows, states: 3, heads, headDim, empty: 0.2 });
  }
});

onEachBackend("mergeStates() takes head dims that are no multiple of 4", async (device) => {
  for (const headDim of [1, 2, 3, 5, 7, 33]) {
    await checkMerge(device, { rows: 3, states: 3, heads: 2, headDim, dtype: "float16" });
    await checkMerge(device, { rows: 3, states: 1, heads: 1, headDim, dtype: "float8_e5m2" });
  }
}, ["wasm"]);

onEachBackend("mergeStates() holds for states that lie far apart or far away", async (device) => {
  for (const range of [0, 1e-6, 100, 2000, 1e30]) {
    await checkMerge(device, { ...PAIR, states: 6, range });
  }
  for (const offset of [-1e5, 1e5]) {
    const c = drawStates({ ...PAIR, states: 4 });
    c.s.forEach((x, i) => c.s[i] = x + offset);
    assert.equal(mergeMiss(c, await runMergeStates(device, c)), null, `offset ${offset}`);
  }
});

onEachBackend("mergeState() is mergeStates() of two, and commutes", async (device) => {
  for (const dtype of DTYPES) {
    const c = drawStates({ ...PAIR, dtype });
    const [a, b] = [stateOf(c, 0), stateOf(c, 1)];
    const forth = await runMergeState(device, a, b);
    assert.equal(mergeMiss(c, forth), null, dtype);
    const back = await runMergeState(device, b, a);
    assert.equal(mergeMiss(c, back), null, `${dtype}, the other way round`);
  }
});

onEachBackend("merging associates", async (device) => {
  const c = drawStates({ ...PAIR, states: 3, empty: 0.2, seed: 5 });
  const [x, y, z] = [0, 1, 2].map((i) => stateOf(c, i));
  const left = await runMergeState(device, asCase(x, await runMergeState(device, x, y)), z);
  const right = await runMergeState(device, x, asCase(x, await runMergeState(device, y, z)));
  const exact = mergedStates(c);
  for (const name of ["out", "lse"] as const) {
    exact[name].forEach((value, i) => {
      if (value === -Infinity) assert.deepEqual([left.lse[i], right.lse[i]], [value, value]);
      else {
        assert.ok(Math.abs(left[name][i] - value) < 3e-6, `left, ${name} ${i}`);
        assert.ok(Math.abs(right[name][i] - value) < 3e-6, `right, ${name} ${i}`);
      }
    });
  }
});

onEachBackend("an empty state changes no bit, and two give the empty state", async (device) => {
  for (const dtype of DTYPES) {
    const a = drawStates({ ...PAIR, states: 1, dtype });
    const empty = drawStates({ ...PAIR, states: 1, dtype, empty: 1, seed: 9 });
    const same = { out: a.v.values, lse: a.s };
    assertSameAnswer(await runMergeState(device, a, empty), same, `${dtype}, second empty`);
    assertSameAnswer(await runMergeState(device, empty, a), same, `${dtype}, first empty`);
    const none = await runMergeState(device, empty, empty);
    assert.ok(none.out.every((x) => Object.is(x, 0)), `${dtype}: out of nothing`);
    assert.ok(none.lse.every((x) => x === -Infinity), `${dtype}: lse of nothing`);
  }
});

onEachBackend("a state merged with itself is itself, with lse + 1", async (device) => {
  const a = drawStates({ ...PAIR, states: 1 });
  using x = tensorsOf(device, a);
  const { out, lse } = await readState(await mergeState(x.v, x.s, x.v, x.s));
  assertSameBits(out, a.v.values, "out");
  assertSameBits(lse, a.s.map((s) => s + 1), "lse");
});

onEachBackend("merging runs again to the same bits, and scales with v exactly", async (device) => {
  const c = drawStates({ ...PAIR, states: 37, empty: 0.1 });
  const first = await runMergeStates(device, c);
  for (let i = 0; i < 20; i++) {
    assertSameAnswer(await runMergeStates(device, c), first, `run ${i + 2}`);
  }
  const scaled = { ...c, v: store(c.v.values.map((x) => x * 2 ** -9), "float32") };
  const { out, lse } = await runMergeStates(device, scaled);
  assertSameBits(out, first.out.map((x) => x * 2 ** -9), "out");
  assertSameBits(lse, first.lse, "lse");
});

onEachBackend("NaN in the only state that is not empty is not taken for none", async (device) => {
  const c = drawStates({ ...PAIR, states: 3, dtype: "float32" });
  // Of each row and head, one state of three.
  c.s.forEach((_, i) => c.s[i] = Math.floor(i / 3) % 3 === 1 ? NaN : -Infinity);
  const { out, lse } = await runMergeStates(device, c);
  assert.ok(out.every(Number.isNaN), "out");
  assert.ok(lse.every(Number.isNaN), "lse");
});

onEachBackend("an lse of infinity makes its row and head NaN", async (device) => {
  for (const other of [1, -Infinity, Infinity]) {
    const c = drawStates({ ...PAIR, states: 2, dtype: "float32" });
    // Of row 2 and head 1.
    c.s[(2 * 2 + 1) * 3 + 1] = Infinity;
    c.s[2 * 2 * 3 + 1] = other;
    const { out, lse } = await runMergeStates(device, c);
    lse.forEach((x, i) => assert.equal(Number.isNaN(x), i === 2 * 3 + 1, `${other}: lse ${i}`));
    out.forEach((x, i) =>
      assert.equal(Number.isNaN(x), Math.floor(i / 16) === 2 * 3 + 1, `${other}: out ${i}`)
    );
  }
});

onEachBackend("NaN in a state stays in its row and head", async (device) => {
  for (const dtype of DTYPES) {
    const clean = drawStates({ ...PAIR, states: 3, dtype });
    const expected = await runMergeStates(device, clean);
    for (const poisoned of ["v", "s"] as const) {
      const c = drawStates({ ...PAIR, states: 3, dtype });
      const place = (2 * 3 + 1) * 3 + 2; // row 2, state 1, head 2
      if (poisoned === "v") fillWithNan(c.v, place * 16, (place + 1) * 16);
      else c.s[place] = NaN;
      const { out, lse } = await runMergeStates(device, c);
      const label = `${dtype}, NaN in ${poisoned}`;
      const hit = 2 * 3 + 2;
      assert.ok(out.subarray(hit * 16, (hit + 1) * 16).every(Number.isNaN), label);
      for (let row = 0; row < 15; row++) {
        if (row === hit) continue;
        const part = (x: Float32Array, size: number) => x.subarray(row * size, (row + 1) * size);
        assertSameBits(part(out, 16), part(expected.out, 16), `${label}: out of ${row}`);
        assertSameBits(part(lse, 1), part(expected.lse, 1), `${label}: lse of ${row}`);
      }
    }
  }
});

/** Merges in place; what v and s hold then. */
async function runInPlace(
  device: Device,
  a: MergeCase,
  b: MergeCase,
  mask?: readonly boolean[],
): Promise<DecodeAnswer> {
  using x = tensorsOf(device, a);
  using y = tensorsOf(device, b);
  await mergeStateInPlace(x.v, x.s, y.v, y.s, { mask });
  assertSameBits(await y.v.read(), b.v.values, "the other v");
  return { out: await x.v.read(), lse: await x.s.read() };
}

onEachBackend("mergeStateInPlace() has the bits of mergeState()", async (device) => {
  for (const dtype of DTYPES) {
    for (const headDim of [16, 20]) { // 5 · 3 · 20 bytes are no multiple of 16
      const c = drawStates({ ...PAIR, dtype, headDim });
      const [a, b] = [stateOf(c, 0), stateOf(c, 1)];
      const apart = await runMergeState(device, a, b);
      assertSameAnswer(await runInPlace(device, a, b), apart, dtype);
      assertSameAnswer(await runInPlace(device, a, b, new Array(5).fill(true)), apart, dtype);
    }
  }
  using x = tensorsOf(device, drawStates({ ...PAIR, states: 1 }));
  const before = await x.v.read();
  await mergeStateInPlace(x.v, x.s, x.v, x.s);
  assertSameBits(await x.v.read(), before, "a state merged into itself");
});

onEachBackend("rows that the mask leaves out keep every bit", async (device) => {
  const mask = [true, false, true, false, false];
  for (const dtype of DTYPES) {
    const c = drawStates({ ...PAIR, dtype });
    const [a, b] = [stateOf(c, 0), stateOf(c, 1)];
    // What a row holds that is not to be merged is nobody's business: here zeros of both signs, and
    // an empty state with values.
    a.v.values.fill(-0, 48, 56);
    const kept = { ...a, v: store(a.v.values, dtype) };
    kept.s[9] = -Infinity;
    const merged = await runMergeState(device, kept, b);
    const { out, lse } = await runInPlace(device, kept, b, mask);
    mask.forEach((isMerged, row) => {
      const [values, sums] = isMerged ? [merged.out, merged.lse] : [kept.v.values, kept.s];
      const label = `${dtype}, row ${row}`;
      assertSameBits(
        out.subarray(row * 48, (row + 1) * 48),
        values.subarray(row * 48, (row + 1) * 48),
        label,
      );
      assertSameBits(
        lse.subarray(row * 3, (row + 1) * 3),
        sums.subarray(row * 3, (row + 1) * 3),
        label,
      );
    });
  }
});

onEachBackend("many calls at once keep apart", async (device) => {
  const cases = Array.from(
    { length: 12 },
    (_, i) => drawStates({ ...PAIR, states: 3, seed: i + 1 }),
  );
  const answers = await Promise.all(cases.map((c) => runMergeStates(device, c)));
  answers.forEach((answer, i) => assert.equal(mergeMiss(cases[i], answer), null, `call ${i}`));
});
