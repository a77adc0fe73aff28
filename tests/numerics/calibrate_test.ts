/** Calibrated scales and their report, against the definitions, and in use. */

import assert from "node:assert/strict";
import {
  calibrate,
  type CalibrationReport,
  type DType,
  quantize,
  singleDecodeWithKvCache,
} from "@kvasir/attention";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { roundTo } from "../support/formats.ts";
import { store } from "../support/storage.ts";
import { normals } from "../support/values.ts";

const BOTH: readonly BackendName[] = ["wasm", "webgpu"];
const FP8 = ["float8_e4m3fn", "float8_e5m2"] as const;
const LARGEST = { float8_e4m3fn: 448, float8_e5m2: 57344 };
const DTYPES: readonly DType[] = ["float32", "float16", "bfloat16", "float8_e4m3fn"];

/** Normals of which head h is 4^h times as large, in [tokens, heads, dim] or its HND. */
function unequalHeads(tokens: number, heads: number, dim: number, layout: "NHD" | "HND") {
  return normals(tokens * heads * dim, tokens).map((x, i) =>
    x * 4 ** (layout === "NHD" ? Math.floor(i / dim) % heads : Math.floor(i / (dim * tokens)))
  );
}

/** What the report must say of some values, in float64. */
function assertReport(
  { scale, count, nonFinite, max, clipped, sqnr, percentile }: CalibrationReport,
  values: Float32Array,
  dtype: typeof FP8[number],
) {
  const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  assert.deepEqual([count, nonFinite, max], [values.length, 0, largest]);
  assert.equal(scale, Math.fround(percentile / LARGEST[dtype]));
  const beyond = values.filter((x) => Math.abs(x) > percentile).length / values.length;
  assert.ok(Math.abs(clipped - beyond) < 1e-3, `clipped ${clipped}, exactly ${beyond}`);
  let [signal, noise] = [0, 0];
  for (const x of values) {
    signal += x * x;
    noise += (x - scale * roundTo(x / scale, dtype)) ** 2;
  }
  const exact = 10 * Math.log10(signal / noise);
  assert.ok(Math.abs(sqnr - exact) < 0.03, `${sqnr} dB, exactly ${exact}`);
}

onEachBackend("calibrate() puts the largest value on the format's largest", async (device) => {
  const values = normals(6000, 2);
  for (const stored of DTYPES) {
    const { bytes, values: held } = store(values, stored);
    using tensor = device.tensorFromBytes(bytes, [10, 6, 100], stored);
    for (const dtype of FP8) {
      const { scale, report, dtype: named } = await calibrate(tensor, { dtype });
      assert.equal(named, dtype);
      assert.equal(report.length, 1);
      assert.equal(report[0].scale, scale);
      assert.equal(report[0].clipped, 0);
      if (stored !== "float8_e4m3fn") assertReport(report[0], held, dtype);
      using codes = await quantize(tensor, dtype, { scale });
      const largest = (await codes.read()).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      assert.equal(largest, LARGEST[dtype]);
    }
  }
}, BOTH);

onEachBackend("calibrate() gives each head its scale, in any layout", async (device) => {
  const [tokens, heads, dim] = [50, 3, 16];
  for (const dtype of FP8) {
    for (const layout of ["NHD", "HND"] as const) {
      const values = unequalHeads(tokens, heads, dim, layout);
      const shape = layout === "NHD" ? [tokens, heads, dim] : [heads, tokens, dim];
      using tensor = device.tensor(values, shape, "float32");
      const options = { dtype, granularity: "head" } as const;
      const { scale, report } = await calibrate(tensor, { ...options, kvLayout: layout });
      for (let head = 0; head < heads; head++) {
        const own = values.filter((_, i) =>
          head === (layout === "NHD" ? Math.floor(i / dim) % heads : Math.floor(i / dim / tokens))
        );
        assertReport(report[head], own, dtype);
        assert.equal(report[head].scale, scale[head]);
      }
      const same = [
        await calibrate(tensor, { ...options, headAxis: layout === "NHD" ? 1 : 0 }),
        await calibrate(tensor, { ...options, headAxis: layout === "NHD" ? -2 : -3 }),
        await calibrate(values, { ...options, kvLayout: layout, shape }),
        await calibrate([values, values], { ...options, kvLayout: layout, shape }),
      ];
      for (const other of same) assert.deepEqual(other.scale, scale);
    }
  }
}, BOTH);

Deno.test("calibrate() clips beyond a percentile", async () => {
  const values = normals(100_000, 6);
  for (const dtype of FP8) {
    for (const percentile of [50, 99, 99.9]) {
      const { report: [report] } = await calibrate(values, { dtype, percentile });
      assertReport(report, values, dtype);
      assert.ok(Math.abs(report.clipped - (1 - percentile / 100)) < 1e-3);
    }
  }
  // More than the percentile are 0: then the largest value counts.
  const sparse = new Float32Array(1000);
  sparse[7] = -896;
  const { scale, report } = await calibrate(sparse, { dtype: "float8_e4m3fn", percentile: 99 });
  assert.deepEqual([scale, report[0].percentile, report[0].clipped], [2, 0, 0]);
});

Deno.test("calibrate() takes in batches as one, and keeps none of them", async () => {
  const values = normals(40 * 32, 4);
  const options = { dtype: "float8_e4m3fn", granularity: "head", shape: [-1, 4, 8] } as const;
  const whole = await calibrate(values, options);
  const cuts = [0, 32, 96, 96, 640, values.length];
  const batch = new Float32Array(values.length);
  function* batches() {
    for (let i = 1; i < cuts.length; i++) {
      const length = cuts[i] - cuts[i - 1];
      batch.set(values.subarray(cuts[i - 1], cuts[i]));
      yield batch.subarray(0, length);
      batch.fill(NaN); // what was yielded is ours again
    }
  }
  async function* later() {
    for (const one of batches()) yield await Promise.resolve(one);
  }
  for (const data of [batches(), later(), [values]]) {
    const { scale, report } = await calibrate(data, options);
    assert.deepEqual(scale, whole.scale);
    report.forEach((one, head) => {
      const { sqnr, ...rest } = whole.report[head];
      assert.ok(Math.abs(one.sqnr - sqnr) < 1e-9);
      assert.deepEqual({ ...one, sqnr }, { ...rest, sqnr });
    });
  }
});

onEachBackend(
  "calibrate() lets an iterable destroy each tensor before the next",
  async (device) => {
    function* tensors() {
      for (let i = 0; i < 5; i++) {
        assert.equal(device.report.memory.tensors, 0);
        using tensor = device.tensor(normals(64, i), [4, 2, 8], "float16");
        yield tensor;
      }
    }
    const { report } = await calibrate(tensors(), { dtype: "float8_e5m2", granularity: "head" });
    assert.deepEqual(report.map(({ count }) => count), [160, 160]);
  },
  BOTH,
);

Deno.test("calibrate() gives scales that can be used, whatever the values", async () => {
  const cases: [number[], Partial<CalibrationReport>][] = [
    [[], { scale: 1, count: 0, max: 0, sqnr: Infinity, clipped: 0 }],
    [[0, -0], { scale: 1, count: 2, max: 0, sqnr: Infinity, clipped: 0 }],
    [[NaN, Infinity, -448], { scale: 1, count: 1, nonFinite: 2, max: 448, sqnr: Infinity }],
    [[2 ** -149, -(2 ** -140)], { scale: 2 ** -126, max: 2 ** -140 }],
    [[3e38, 1], { scale: Math.fround(Math.fround(3e38) / 448), clipped: 0 }],
  ];
  for (const [values, expected] of cases) {
    const { report: [report] } = await calibrate(Float32Array.from(values), {
      dtype: "float8_e4m3fn",
    });
    for (const [name, value] of Object.entries(expected)) {
      assert.equal(report[name as keyof CalibrationReport], value, `${values}: ${name}`);
    }
  }
});

onEachBackend("calibrated scales go straight into attention", async (device) => {
  const [tokens, heads, dim] = [40, 2, 16];
  const shape = [tokens, heads, dim];
  const [kValues, vValues] = [3, 4].map((seed) => normals(tokens * heads * dim, seed));
  // Far beyond what e4m3 holds without a scale: head 0 near 1e-4, head 1 near 1e4.
  const sized = vValues.map((x, i) => x * (Math.floor(i / dim) % heads ? 1e4 : 1e-4));
  using q = device.tensor(normals(heads * dim, 5), [heads, dim], "float32");
  using k = device.tensor(kValues, shape, "float32");
  using v = device.tensor(sized, shape, "float32");
  const dtype = "float8_e4m3fn";
  const keys = await calibrate(k, { dtype });
  const values = await calibrate(v, { dtype, granularity: "head" });
  using kCodes = await quantize(k, dtype, { scale: keys.scale });
  const scaled = sized.map((x, i) => x / values.scale[Math.floor(i / dim) % heads]);
  using vCodes = device.tensor(scaled, shape, dtype);
  using exact = await singleDecodeWithKvCache(q, k, v);
  using out = await singleDecodeWithKvCache(q, kCodes, vCodes, {
    kScale: keys.scale,
    vScale: values.scale,
  });
  const [want, got] = [await exact.read(), await out.read()];
  for (let head = 0; head < heads; head++) {
    const range = [head * dim, (head + 1) * dim] as const;
    const size = Math.hypot(...want.subarray(...range));
    const error = Math.hypot(...got.slice(...range).map((x, i) => x - want[range[0] + i]));
    assert.ok(error < 0.1 * size, `head ${head}: ${error} of ${size}`);
  }
}, BOTH);
