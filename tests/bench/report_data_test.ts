/** What the report compares and plots, without drawing it. */

import assert from "node:assert/strict";
import { type BenchLine, type BenchResult, samples } from "../../bench/results.ts";
import { compare } from "../../bench/report/compare.ts";
import { digits, shapeText } from "../../bench/report/format.ts";
import { plotsOf } from "../../bench/report/plots.ts";
import { fp8Bars } from "../../bench/report/plots/fp8.ts";
import { lengthPanels } from "../../bench/report/plots/length.ts";
import { rooflinePoints } from "../../bench/report/plots/roofline.ts";
import { line, sample, shape } from "./report_sample.ts";

/** A run with these lines. */
function run(lines: readonly BenchLine[]): BenchResult {
  return { ...sample(), lines };
}

Deno.test("report: lines are matched by family, library, shape and dtype", () => {
  const sizes = shape(4, 1, 1024, 8, 8);
  const one = line(sizes, "float16", 0.5);
  const time = (median: number, kernel = one.kernel): BenchLine => ({
    ...one,
    kernel,
    time: samples([median]),
  });
  const others: Partial<BenchLine>[] = [
    { family: "merge" },
    { library: "onnxruntime-web" },
    { dtype: "bfloat16" },
    { shape: null },
    { shape: shape(4, 1, 2048, 8, 8) },
  ];
  const verdict = (before: BenchLine[], after: BenchLine[]) => {
    const { changes, onlyBefore, onlyAfter } = compare(run(before), run(after));
    const told = changes.map(({ before, after, ratio, verdict }) => [
      before.kernel,
      after.kernel,
      ratio,
      verdict,
    ]);
    return [told, onlyBefore.length, onlyAfter.length];
  };
  const k = one.kernel;
  assert.deepEqual(verdict([time(200)], [time(100)]), [[[k, k, 2, "faster"]], 0, 0]);
  assert.deepEqual(verdict([time(100)], [time(200)]), [[[k, k, 0.5, "slower"]], 0, 0]);
  assert.deepEqual(verdict([time(102)], [time(100)]), [[[k, k, 1.02, "same"]], 0, 0]);
  for (const other of others) {
    assert.deepEqual(verdict([time(1)], [{ ...one, ...other }]), [[], 1, 1]);
  }
  // A renamed kernel is the same line; of several variants each meets its own.
  assert.deepEqual(verdict([time(4, "old")], [time(2, "new")]), [
    [["old", "new", 2, "faster"]],
    0,
    0,
  ]);
  assert.deepEqual(
    verdict([time(4, "a"), time(8, "b")], [time(8, "b"), time(2, "a"), time(1, "c")]),
    [[["b", "b", 1, "same"], ["a", "a", 2, "faster"]], 0, 1],
  );
  // Fields in another order are the same shape; recorded figures were measured in neither.
  const turned = Object.fromEntries(Object.entries(sizes).reverse()) as unknown as typeof sizes;
  assert.equal(compare(run([one]), run([{ ...one, shape: turned }])).changes.length, 1);
  const recorded = { ...one, recorded: "a paper" };
  assert.deepEqual(verdict([recorded], [recorded]), [[], 0, 0]);
});

Deno.test("report: changes have names of their own", () => {
  const { changes } = compare(sample(0.8), sample());
  assert.equal(new Set(changes.map(({ label }) => label)).size, changes.length);
  assert.ok(changes.some(({ label }) => label.includes("[encode, new array]")));
});

Deno.test("report: the roofline shows what the GPU computes, at its speed", () => {
  const points = rooflinePoints(sample());
  assert.ok(points.every(({ family }) => family === "decode" || family === "prefill"));
  const sizes = shape(64, 1, 4096, 8, 8);
  const [point] = rooflinePoints(run([line(sizes, "float8_e4m3fn", 0.5)]));
  // One query head on an FP8 cache: 4 operations for 2 bytes; half of 4412 GB/s.
  assert.equal(point.intensity, 2);
  assert.ok(Math.abs(point.tflops - 4.412) < 1e-9);
});

Deno.test("report: speed over length has a panel for each problem with several lengths", () => {
  const panels = lengthPanels(sample());
  assert.deepEqual(panels.map(({ unit }) => unit), ["GB/s", "GB/s", "GB/s", "GB/s", "TFLOP/s"]);
  assert.equal(panels[4].title, "prefill: 1 ×, 32/8 heads, D 128, all tokens");
  assert.deepEqual([...new Set(panels[4].points.map(({ library }) => library))], [
    "kvasir",
    "onnxruntime-web",
    "FlashInfer (recorded)",
  ]);
  // Of two kernels on one problem the faster one counts.
  const at = (keys: number, share: number) => line(shape(1, 1, keys, 8, 8), "float16", share);
  const [panel] = lengthPanels(run([at(64, 0.25), at(64, 0.5), at(128, 0.5)]));
  assert.deepEqual(panel.points.map(({ kvLen, speed }) => [kvLen, Math.round(speed)]), [
    [64, 2206],
    [128, 2206],
  ]);
});

Deno.test("report: FP8 is compared with float16 of the same shape and library", () => {
  const sizes = shape(64, 1, 4096, 8, 8);
  const bars = fp8Bars(run([
    line(sizes, "float16", 0.8),
    line(sizes, "float8_e4m3fn", 0.2),
    line(sizes, "float8_e4m3fn", 0.6),
    line(sizes, "bfloat16", 0.8),
    line(sizes, "float8_e5m2", 0.6, { library: "another" }),
    line(shape(1, 1, 64, 8, 8), "float8_e5m2", 0.5),
  ]));
  assert.deepEqual(bars.map(({ group, dtype, ratio }) => [group, dtype, digits(ratio)]), [
    [`decode: ${shapeText(sizes)}`, "f16", "1.00"],
    [`decode: ${shapeText(sizes)}`, "e4m3", "1.50"],
  ]);
});

Deno.test("report: plots with nothing to show say so, and only two files have a before", () => {
  const empty = run([]);
  for (const { spec, leftOut } of plotsOf(empty, compare(empty, empty))) {
    assert.equal(spec, null);
    assert.notEqual(leftOut, "");
  }
  const ids = (comparison: ReturnType<typeof compare> | null) =>
    plotsOf(sample(), comparison).map(({ id, spec, leftOut }) => {
      assert.ok(spec !== null && leftOut === "");
      return id;
    });
  assert.deepEqual(ids(null), ["roofline", "length", "fp8"]);
  assert.deepEqual(ids(compare(sample(), sample())), ["change", "roofline", "length", "fp8"]);
});
