/** The histogram that calibration keeps: counts, percentiles and errors against the values themselves. */

import assert from "node:assert/strict";
import { MagnitudeHistogram } from "../../src/calibration_statistics.ts";
import { roundTo } from "../support/formats.ts";
import { normals, randomBits } from "../support/values.ts";

function histogramOf(values: Float32Array): MagnitudeHistogram {
  const histogram = new MagnitudeHistogram();
  histogram.add(values, 0, values.length);
  return histogram;
}

Deno.test("MagnitudeHistogram counts every float there is", () => {
  const values = randomBits(100_000, 3);
  const finite = values.filter(Number.isFinite);
  const histogram = histogramOf(values);
  assert.ok(finite.length < values.length);
  assert.equal(histogram.count, finite.length);
  assert.equal(histogram.nonFinite, values.length - finite.length);
  assert.equal(histogram.max, finite.reduce((max, x) => Math.max(max, Math.abs(x)), 0));
  const sorted = finite.map(Math.abs).sort();
  for (const percent of [0.01, 1, 30, 50, 77, 99, 99.9]) {
    const exact = sorted[Math.ceil(finite.length * percent / 100) - 1];
    const got = histogram.percentile(percent);
    // Subnormals have bins of one width.
    const width = Math.max(exact, 2 ** -126) / 256;
    assert.ok(Math.abs(got - exact) <= width, `${percent}: ${got}, ${exact}`);
  }
  assert.equal(histogram.percentile(100), histogram.max);
});

Deno.test("MagnitudeHistogram tells how many values are above a limit", () => {
  const values = normals(50_000, 8);
  const histogram = histogramOf(values);
  for (const limit of [0, 0.5, 1, 2.5, 4]) {
    const exact = values.filter((x) => Math.abs(x) > limit).length / values.length;
    const got = histogram.shareAbove(limit);
    // A bin at 1 has 1 / 256 of the density of 0.48.
    assert.ok(Math.abs(got - exact) < 2e-3, `${limit}: ${got}, ${exact}`);
  }
  assert.equal(histogram.shareAbove(histogram.max), 0);
});

Deno.test("MagnitudeHistogram gives the signal to noise of rounding", () => {
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    for (const size of [1e-3, 0.02, 1, 300]) {
      const values = normals(40_000, 5).map((x) => x * size);
      let [signal, noise] = [0, 0];
      for (const x of values) {
        signal += x * x;
        noise += (x - roundTo(x, dtype)) ** 2;
      }
      const exact = 10 * Math.log10(signal / noise);
      const got = histogramOf(values).sqnr((means) => means.map((x) => roundTo(x, dtype)));
      assert.ok(Math.abs(got - exact) < 0.01, `${dtype}, ${size}: ${got} dB, exactly ${exact}`);
    }
  }
});

Deno.test("MagnitudeHistogram of values that lose nothing, of zeros and of nothing", () => {
  const round = (means: Float32Array<ArrayBuffer>) => means;
  assert.equal(histogramOf(Float32Array.of(1, -0.5, 3)).sqnr(round), Infinity);
  for (
    const values of [new Float32Array(5), new Float32Array(0), Float32Array.of(NaN, -Infinity)]
  ) {
    const histogram = histogramOf(values);
    assert.equal(histogram.sqnr(round), Infinity);
    assert.equal(histogram.max, 0);
    for (const percent of [1, 50, 100]) assert.equal(histogram.percentile(percent), 0);
    assert.equal(histogram.shareAbove(0), 0);
  }
});
