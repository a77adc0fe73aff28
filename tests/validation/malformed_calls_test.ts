/**
 * Random malformed calls: whatever is wrong with one, it gets a typed error that names an argument,
 * and planning is never reached. Checks are pure, so this needs no device.
 */

import assert from "node:assert/strict";
import { type DType, KvasirError } from "@kvasir/attention";
import fc from "fast-check";
import { paddedDecode, singleDecode } from "../../src/decode_problem.ts";
import type { PaddedDecodeOptions } from "../../src/options.ts";

const DTYPES: readonly DType[] = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"];
const GOOD = {
  q: { shape: [2, 6, 8], dtype: "float16" as DType },
  k: { shape: [2, 5, 3, 8], dtype: "float8_e4m3fn" as DType },
  v: { shape: [2, 5, 3, 8], dtype: "float8_e4m3fn" as DType },
};

/** What no numeric option takes. */
const noNumber = fc.oneof(
  fc.constantFrom(NaN, Infinity, -Infinity, 1e39, null, true, {}, [], "1", () => 1, 10n),
  fc.string(),
);
/** What is none of a few words. */
const noWord = fc.anything().filter((value) =>
  value !== undefined && value !== null &&
  !["NHD", "HND", "NONE", "ROPE_LLAMA", "ALIBI"].includes(value as string) &&
  !["log2", "ln", ...DTYPES].includes(value as string)
);
const badList = (good: number) =>
  fc.oneof(
    fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { maxLength: 20 })
      .filter((list) => list.length !== good),
    fc.array(fc.constantFrom(NaN, Infinity, "x", null), { minLength: good, maxLength: good }),
  );

const badOptions = fc.oneof(
  fc.record({ kvLayout: noWord }),
  fc.record({ posEncodingMode: noWord }),
  fc.record({ lseBase: noWord }),
  fc.record({ outDtype: noWord }),
  fc.record({ smScale: noNumber.filter((x) => x !== null) }),
  fc.record({ qScale: fc.oneof(badList(6), fc.constantFrom(NaN, "1", {}, true)) }),
  fc.record({ kScale: fc.oneof(badList(3), fc.constantFrom(Infinity, "1", {}, true)) }),
  fc.record({ vScale: fc.oneof(badList(3), fc.constantFrom(1e39, "1", {}, true)) }),
  fc.record({ sinks: fc.oneof(badList(6), fc.constantFrom(1, "1", {}, null)) }),
  fc.record({ windowLeft: fc.oneof(fc.integer({ max: -2 }), fc.constantFrom(0.5, "1", NaN, {})) }),
  fc.record({ logitsSoftCap: fc.constantFrom(-1, -1e-9, NaN, Infinity, "30", {}) }),
  fc.record({ ropeScale: fc.constantFrom(0, -1, NaN, "1", {}) }),
  fc.record({ ropeTheta: fc.constantFrom(0, -1e4, Infinity, "1", {}) }),
  fc.record({ returnLse: fc.constantFrom(0, 1, "true", {}) }),
  fc.record({
    seqLens: fc.oneof(
      fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 8 }).filter((list) =>
        list.length !== 2
      ),
      fc.tuple(fc.constantFrom(-1, 6, 1.5, NaN, "3", null), fc.constantFrom(0, 5)),
      fc.constantFrom(5, "55", {}),
    ),
  }),
  fc.string().filter((name) =>
    !/^(kvL|pos|rope|smS|qS|kS|vS|win|log|sin|out|ret|lse|seq|__proto)/.test(name)
  )
    .map((name) => ({ [name]: 1 })),
);

function assertTyped(label: string, work: () => unknown): void {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof KvasirError, `${label}: ${error}`);
    assert.match(error.message, /^(q|k|v|options)[^]*: got /, label);
    return;
  }
  assert.fail(`${label}: no error`);
}

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
        hq > 0 && hkv > 0 && hq % hkv === 0 && String(k.shape) === String(v.shape) &&
        k.dtype === v.dtype;
      const work = () => paddedDecode(q, k, v, { kvLayout: kvLayout as "NHD" });
      if (fits) work();
      else assertTyped(`${q.shape} | ${k.shape} | ${v.shape}`, work);
    }),
    { numRuns: 6000 },
  );
});
