/**
 * Random malformed calls of prefill, and random malformed plans: whatever is wrong with one, it gets
 * a typed error that names an argument, and what fits is taken.
 */

import assert from "node:assert/strict";
import {
  batchPrefillWithPaddedKvCache,
  BatchPrefillWithRaggedKvCache,
  KvasirError,
  type Tensor,
} from "@kvasir/attention";
import fc from "fast-check";
import type { MaskOptions, PaddedPrefillOptions } from "../../src/options.ts";
import type { RaggedPrefillPlan } from "../../src/planned_options.ts";
import { paddedPrefill, singlePrefill } from "../../src/prefill_problem.ts";
import { raggedPrefill } from "../../src/ragged_problem.ts";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertTyped, badOptions, countWork, DTYPES } from "../support/malformed.ts";

const GOOD = {
  q: { shape: [2, 4, 6, 8], dtype: "float16" },
  k: { shape: [2, 5, 3, 8], dtype: "float8_e4m3fn" },
  v: { shape: [2, 5, 3, 16], dtype: "float8_e4m3fn" },
} as const;

/** Masks that do not fit two requests of `rows` queries and `columns` keys. */
const badMasks = (rows: number, columns: number): fc.Arbitrary<Record<string, unknown>> => {
  const size = 2 * rows * columns;
  const bytes = 2 * Math.ceil(rows * columns / 8);
  const bit = fc.constantFrom<unknown>(true, false, 0, 1);
  const noBit = fc.constantFrom<unknown>(2, -1, 0.5, NaN, "1", null, undefined, 1n, []);
  return fc.oneof(
    fc.record({
      customMask: fc.array(bit, { maxLength: 2 * size }).filter(({ length }) => length !== size),
    }),
    fc.record({
      customMask: fc.tuple(fc.array(bit, { minLength: size, maxLength: size }), fc.nat(), noBit)
        .map(([mask, at, value]) => mask.with(at % size, value)),
    }),
    fc.record({
      customMask: fc.constantFrom(null, true, "x", {}, new DataView(new ArrayBuffer(8))),
    }),
    fc.record({
      packedCustomMask: fc.uint8Array({ maxLength: 2 * bytes })
        .filter(({ length }) => length !== bytes),
    }),
    fc.record({ packedCustomMask: fc.constantFrom(null, [], new Array(bytes).fill(1), "x") }),
    fc.constant({
      customMask: new Uint8Array(size),
      packedCustomMask: new Uint8Array(bytes),
    }),
    fc.record({ causal: fc.constantFrom<unknown>(0, 1, "true", {}) }),
  );
};

/** Options of decode that prefill has too: names that it does not know come from their own list. */
const badShared = badOptions.filter((options) =>
  !/^(causal|customM|packedC|qoL)/.test(Object.keys(options)[0])
);

const badQoLens = fc.record({
  qoLens: fc.oneof(
    fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 8 }).filter((list) => list.length !== 2),
    fc.tuple(fc.constantFrom(-1, 5, 1.5, NaN, "3", null), fc.constantFrom(0, 4)),
    fc.constantFrom(4, "44", {}),
  ),
});

Deno.test("random malformed options of prefill get typed errors", () => {
  const any = fc.oneof(badShared, badMasks(4, 5), badQoLens);
  fc.assert(
    fc.property(any, fc.boolean(), (options, single) => {
      const label = Object.keys(options).join();
      const given = options as PaddedPrefillOptions;
      if (!single) return assertTyped(label, () => paddedPrefill(GOOD.q, GOOD.k, GOOD.v, given));
      const [q, k, v] = [GOOD.q, GOOD.k, GOOD.v]
        .map(({ shape, dtype }) => ({ shape: shape.slice(1), dtype }));
      const { customMask, packedCustomMask } = options as MaskOptions;
      // Half of the masks of two requests may be one's.
      if (customMask?.length === 20 || packedCustomMask?.length === 3) return;
      assertTyped(label, () => singlePrefill(q, k, v, given));
    }),
    { numRuns: 6000 },
  );
});

Deno.test("random shapes and dtypes of prefill get typed errors, unless they fit", () => {
  // Mostly near to what fits, since few random shapes do.
  const near = (good: readonly number[]) =>
    fc.oneof(
      { weight: 3, arbitrary: fc.constant([...good]) },
      fc.tuple(fc.nat(), fc.integer({ min: 0, max: 8 })).map(([at, dim]) =>
        good.with(at % good.length, dim)
      ),
      fc.array(fc.integer({ min: 0, max: 8 }), { maxLength: 6 }),
    );
  const spec = (good: readonly number[]) =>
    fc.record({
      shape: near(good),
      dtype: fc.oneof(
        { weight: 5, arbitrary: fc.constant(DTYPES[0]) },
        fc.constantFrom(...DTYPES),
      ),
    });
  let fitted = 0;
  fc.assert(
    fc.property(
      spec(GOOD.q.shape),
      spec(GOOD.k.shape),
      spec(GOOD.v.shape),
      fc.constantFrom("NHD" as const, "HND" as const),
      (q, k, v, kvLayout) => {
        const [b, , hq, d] = q.shape;
        const [cb, x, y, cd] = k.shape;
        const hkv = kvLayout === "NHD" ? y : x;
        const fits = [q, k, v].every(({ shape }) => shape.length === 4) && b === cb && d === cd &&
          d > 0 && v.shape[3] > 0 && hq > 0 && hkv > 0 && hq % hkv === 0 &&
          String(k.shape.slice(0, 3)) === String(v.shape.slice(0, 3));
        const work = () => paddedPrefill(q, k, v, { kvLayout });
        if (fits) work();
        else assertTyped(`${q.shape} | ${k.shape} | ${v.shape}`, work);
        fitted += Number(fits);
      },
    ),
    { numRuns: 6000 },
  );
  assert.ok(fitted > 100, `only ${fitted} fitted`);
});

/** Two requests of 4 queries and 5 keys each. */
const PLAN: RaggedPrefillPlan = {
  qoIndptr: [0, 4, 8],
  kvIndptr: [0, 5, 10],
  numQoHeads: 6,
  numKvHeads: 3,
  headDim: 8,
  qDtype: "float16",
  kvDtype: "float8_e4m3fn",
};

const noSize = fc.constantFrom<unknown>(0, -1, 1.5, NaN, Infinity, "6", null, {}, [], 2 ** 20);

const badIndptr = fc.oneof(
  fc.constantFrom<unknown>([], [0], null, undefined, 5, "0", {}),
  fc.array(fc.integer({ min: -2, max: 9 }), { minLength: 3, maxLength: 3 })
    .filter(([a, b, c]) => !(a === 0 && 0 <= b && b <= c)),
  fc.array(fc.constantFrom<unknown>(0, 1.5, NaN, Infinity, "1", null, 2 ** 31), {
    minLength: 3,
    maxLength: 3,
  }).filter((list) => list.some((x) => x !== 0)),
);

const badPlans: fc.Arbitrary<Record<string, unknown>> = fc.oneof(
  badShared.filter((options) => !("kvLayout" in options)),
  badMasks(4, 5),
  fc.record({ qoIndptr: badIndptr }),
  fc.record({ kvIndptr: badIndptr }),
  fc.record({ numQoHeads: fc.oneof(noSize, fc.constantFrom(1, 2, 4, 5, 7)) }),
  fc.record({ numKvHeads: fc.oneof(noSize, fc.constantFrom(4, 5, 12)) }),
  fc.record({ headDim: noSize }),
  fc.record({ headDimV: noSize.filter((size) => size !== null) }),
  fc.record({ qDtype: fc.constantFrom<unknown>("fp16", null, undefined, 1) }),
  fc.record({ kvDtype: fc.constantFrom<unknown>("fp8", null, undefined, 1) }),
);

Deno.test("random malformed plans get typed errors", () => {
  fc.assert(
    fc.property(badPlans, fc.constantFrom("NHD" as const, "HND" as const), (bad, layout) => {
      const plan = { ...PLAN, ...bad } as RaggedPrefillPlan;
      assertTyped(Object.keys(bad).join(), () => raggedPrefill(plan, layout));
    }),
    { numRuns: 10_000 },
  );
});

Deno.test("random index arrays are refused, unless they rise from 0", () => {
  const entry = fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: 0, max: 20 }) },
    fc.constantFrom(-1, 2 ** 31 - 1, 2 ** 31, 0.5),
  );
  const indptr = fc.oneof(
    fc.array(entry, { maxLength: 6 }),
    fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 5 }).map((lengths) => {
      let sum = 0;
      return [0, ...lengths.map((length) => sum += length)];
    }),
  );
  const isIndptr = (list: readonly number[]) =>
    list[0] === 0 &&
    list.every((x, i) => Number.isInteger(x) && x < 2 ** 31 && (i === 0 || x >= list[i - 1]));
  let fitted = 0;
  fc.assert(
    fc.property(indptr, fc.oneof(indptr, fc.constant(null)), (qoIndptr, other) => {
      const kvIndptr = other ?? qoIndptr;
      const fits = isIndptr(qoIndptr) && isIndptr(kvIndptr) && qoIndptr.length === kvIndptr.length;
      const work = () => raggedPrefill({ ...PLAN, qoIndptr, kvIndptr }, "NHD");
      if (fits) work();
      else assertTyped(`${qoIndptr} | ${kvIndptr}`, work);
      fitted += Number(fits);
    }),
    { numRuns: 6000 },
  );
  assert.ok(fitted > 100, `only ${fitted} fitted`);
});

const ON: readonly BackendName[] = ["wasm", "webgpu"];

onEachBackend("random malformed prefills ask the device for nothing", async (device) => {
  const tensors = {
    q: device.empty(GOOD.q.shape, "float16"),
    k: device.empty(GOOD.k.shape, "float8_e4m3fn"),
    v: device.empty([2, 6, 3, 8], "float8_e4m3fn"),
    half: device.empty(GOOD.k.shape, "float16"),
    rows: device.empty([8, 6, 8], "float16"),
    tokens: device.empty([10, 3, 8], "float8_e4m3fn"),
    lse: device.empty([8, 6], "float32"),
  };
  const { q, k, rows, tokens, lse } = tensors;
  const before = device.report.memory;
  const prefill = new BatchPrefillWithRaggedKvCache(device);
  prefill.plan(PLAN);
  const anyTensor = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...Object.values(tensors)) },
    fc.constantFrom(...[null, undefined, 5, "q", {}, [1, 2]] as unknown as Tensor[]),
  );
  /** Any two of the tensors of rank 4 may be q and k, if the heads allow it, and v another of k's shape. */
  const fits = (a: Tensor, b: Tensor) =>
    a?.shape?.length === 4 && b?.shape?.length === 4 && a.shape[2] % b.shape[2] === 0;
  const calls = fc.oneof(
    fc.oneof(badShared, badMasks(4, 5), badQoLens).map((options) => () =>
      batchPrefillWithPaddedKvCache(q, k, k, options as never)
    ),
    fc.tuple(anyTensor, anyTensor, anyTensor)
      .filter(([a, b, c]) => String(b?.shape) !== String(c?.shape) || !fits(a, b))
      .map((all) => () => batchPrefillWithPaddedKvCache(...all)),
    fc.tuple(anyTensor, anyTensor, anyTensor)
      .filter(([a, b, c]) => a !== rows || b !== tokens || c !== tokens)
      .map((all) => () => prefill.run(...all)),
    fc.oneof(
      fc.record({ out: anyTensor.filter((x) => x !== undefined) }),
      fc.record({
        returnLse: fc.constant(true),
        lse: anyTensor.filter((x) => x !== lse && x !== undefined),
      }),
      fc.record({ returnLse: fc.constantFrom(1, 0, "true") }),
      fc.constant({ lse }),
    ).map((options) => () => prefill.run(rows, tokens, tokens, options as never)),
    badPlans.map((bad) => async () => {
      await Promise.resolve();
      prefill.plan({ ...PLAN, ...bad } as RaggedPrefillPlan);
    }),
  );
  const property = fc.asyncProperty(calls, async (call) => {
    const error = await call().then(() => null, (error) => error);
    assert.ok(error instanceof KvasirError, `${error}`);
    assert.ok(error.code.startsWith("KVASIR_") && error.hint.length > 0, `${error}`);
  });
  const count = await countWork(device, () => fc.assert(property, { numRuns: 3000 }));
  assert.equal(count, 0, "calls of the backend");
  assert.deepEqual(device.report.memory, before);
  for (const tensor of Object.values(tensors)) tensor.destroy();
}, ON);
