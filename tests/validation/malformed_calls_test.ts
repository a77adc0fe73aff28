/**
 * Random malformed calls: whatever is wrong with one, it gets a typed error that names an argument,
 * and planning is never reached. Checks are pure, so most of this needs no device; where there is one,
 * it is asked for nothing, and nothing is left alive.
 */

import assert from "node:assert/strict";
import {
  batchDecodeWithPaddedKvCache,
  type DType,
  KvasirError,
  mergeState,
  mergeStateInPlace,
  mergeStates,
  singleDecodeWithKvCache,
  type Tensor,
} from "@kvasir/attention";
import fc from "fast-check";
import { paddedDecode, singleDecode } from "../../src/decode_problem.ts";
import { mergeMany, mergePair } from "../../src/merge_problem.ts";
import type { PaddedDecodeOptions } from "../../src/options.ts";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertTyped, badOptions, countWork, DTYPES } from "../support/malformed.ts";

const GOOD = {
  q: { shape: [2, 6, 8], dtype: "float16" as DType },
  k: { shape: [2, 5, 3, 8], dtype: "float8_e4m3fn" as DType },
  v: { shape: [2, 5, 3, 8], dtype: "float8_e4m3fn" as DType },
};

Deno.test("random malformed options get typed errors", () => {
  fc.assert(
    fc.property(badOptions, fc.boolean(), (options, single) => {
      if (single && "seqLens" in options) return;
      const given = options as unknown as PaddedDecodeOptions;
      const label = Object.keys(options).join();
      if (!single) return assertTyped(label, () => paddedDecode(GOOD.q, GOOD.k, GOOD.v, given));
      const [q, k, v] = [GOOD.q, GOOD.k, GOOD.v]
        .map(({ shape, dtype }) => ({ shape: shape.slice(1), dtype }));
      assertTyped(label, () => singleDecode(q, k, v, given));
    }),
    { numRuns: 6000 },
  );
});

Deno.test("random shapes and dtypes get typed errors, unless they fit", () => {
  const dim = fc.integer({ min: 0, max: 8 });
  const spec = fc.record({
    shape: fc.array(dim, { maxLength: 5 }),
    dtype: fc.constantFrom(...DTYPES),
  });
  fc.assert(
    fc.property(spec, spec, spec, fc.constantFrom("NHD", "HND"), (q, k, v, kvLayout) => {
      const [b, hq, d] = q.shape;
      const [cb, x, y, cd] = k.shape;
      const hkv = kvLayout === "NHD" ? y : x;
      const fits = q.shape.length === 3 && k.shape.length === 4 && b === cb && d === cd && d > 0 &&
        hq > 0 && hkv > 0 && hq % hkv === 0 && String(k.shape) === String(v.shape);
      const work = () => paddedDecode(q, k, v, { kvLayout: kvLayout as "NHD" });
      if (fits) work();
      else assertTyped(`${q.shape} | ${k.shape} | ${v.shape}`, work);
    }),
    { numRuns: 6000 },
  );
});

Deno.test("random states get typed errors, unless they fit", () => {
  const dim = fc.constantFrom(0, 1, 2, 3);
  // Mostly near to what fits, since few random shapes do.
  const sums = fc.oneof(
    { weight: 3, arbitrary: fc.constant("fits" as const) },
    fc.array(dim, { maxLength: 4 }),
  );
  const state = fc.record({
    v: fc.array(dim, { minLength: 2, maxLength: 5 }),
    vDtype: fc.constantFrom(...DTYPES.slice(0, 2)),
    s: sums,
    sDtype: fc.oneof(
      { weight: 4, arbitrary: fc.constant<DType>("float32") },
      fc.constantFrom(...DTYPES),
    ),
  }).map(({ v, vDtype, s, sDtype }) => ({
    v: { shape: v, dtype: vDtype },
    s: { shape: s === "fits" ? v.slice(0, -1) : s, dtype: sDtype },
  }));
  type State = typeof state extends fc.Arbitrary<infer T> ? T : never;
  const isState = ({ v, s }: State, rank: number) =>
    v.shape.length === rank && v.shape[rank - 1] > 0 && s.dtype === "float32" &&
    String(s.shape) === String(v.shape.slice(0, -1));
  const names = ["vA", "sA", "vB", "sB"] as const;
  const mask = fc.option(fc.array(fc.constantFrom(true, false, 1), { maxLength: 3 }), {
    nil: undefined,
    freq: 2,
  });
  let fitted = 0;
  fc.assert(
    fc.property(state, fc.option(state), mask, (a, other, mask) => {
      const b = other ?? a;
      const fits = isState(a, 3) && isState(b, 3) && a.v.dtype === b.v.dtype &&
        String(a.v.shape) === String(b.v.shape) &&
        (!mask || mask.length === a.v.shape[0] && mask.every((x) => x !== 1));
      const work = () => mergePair(a, b, names, { mask: mask as boolean[] | undefined });
      const label = JSON.stringify([a, b, mask]);
      if (fits) work();
      else assertTyped(label, work);
      fitted += Number(fits);
      if (isState(a, 4)) mergeMany(a);
      else assertTyped(label, () => mergeMany(a));
    }),
    { numRuns: 6000 },
  );
  assert.ok(fitted > 20, `only ${fitted} fitted`);
});

const ON: readonly BackendName[] = ["wasm", "webgpu"];

onEachBackend("random malformed calls ask the device for nothing", async (device) => {
  const tensors = {
    q: device.empty(GOOD.q.shape, "float16"),
    q1: device.empty(GOOD.q.shape.slice(1), "float16"),
    k: device.empty(GOOD.k.shape, "float8_e4m3fn"),
    k1: device.empty(GOOD.k.shape.slice(1), "float8_e4m3fn"),
    wide: device.empty([2, 5, 3, 16], "float8_e4m3fn"),
    half: device.empty(GOOD.k.shape, "float16"),
    state: device.empty([2, 6, 8], "float32"),
    sums: device.empty([2, 6], "float32"),
    list: device.empty([3], "float32"),
  };
  const before = device.report.memory;
  const anyTensor = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...Object.values(tensors)) },
    fc.constantFrom(...[null, undefined, 5, "q", {}, [1, 2]] as unknown as Tensor[]),
  );
  const calls = fc.oneof(
    fc.tuple(badOptions).map(([options]) => () =>
      batchDecodeWithPaddedKvCache(tensors.q, tensors.k, tensors.k, options as never)
    ),
    fc.tuple(badOptions).filter(([options]) => !("seqLens" in options)).map(([options]) => () =>
      singleDecodeWithKvCache(tensors.q1, tensors.k1, tensors.k1, options as never)
    ),
    fc.tuple(badOptions).map(([options]) => () =>
      // With a tensor among the options, all else is still found before it is read.
      batchDecodeWithPaddedKvCache(tensors.q, tensors.k, tensors.k, {
        kScale: tensors.list,
        ...options,
      } as never)
    ),
    // k and v fit each other where they have one shape; states and sums hardly ever do.
    fc.tuple(anyTensor, anyTensor, anyTensor)
      .filter(([q, k, v]) =>
        !([tensors.q, tensors.q1, tensors.state].includes(q) &&
          String(k?.shape) === String(v?.shape))
      )
      .map(([q, k, v]) => () => batchDecodeWithPaddedKvCache(q, k, v)),
    fc.tuple(anyTensor, anyTensor, anyTensor, anyTensor)
      .filter(([, s]) => s !== tensors.sums)
      .map(([v, s, vOther, sOther]) => () => mergeState(v, s, vOther, sOther)),
    fc.tuple(anyTensor, anyTensor, anyTensor, anyTensor)
      .filter(([, , , sOther]) => sOther !== tensors.sums)
      .map(([v, s, vOther, sOther]) => () => mergeStateInPlace(v, s, vOther, sOther)),
    fc.tuple(anyTensor, anyTensor).map(([v, s]) => () => mergeStates(v, s)),
    fc.anything().filter((mask) => mask !== undefined).map((mask) => () =>
      mergeStateInPlace(tensors.state, tensors.sums, tensors.state, tensors.sums, {
        mask: Array.isArray(mask) && mask.length === 2 ? 5 : mask,
      } as never)
    ),
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
