/** The report of a bench: what it refuses, what its page holds, and what it compares. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { type BenchLine, type BenchResult, samples } from "../../bench/results.ts";
import { compare } from "../../bench/report/compare.ts";
import { inline, NoVegaError, standalone } from "../../bench/report/draw.ts";
import { digits, duration, percent, shapeText } from "../../bench/report/format.ts";
import { report } from "../../bench/report/main.ts";
import { page } from "../../bench/report/page.ts";
import { plotsOf } from "../../bench/report/plots.ts";
import { fp8Bars } from "../../bench/report/plots/fp8.ts";
import { lengthPanels } from "../../bench/report/plots/length.ts";
import { rooflinePoints } from "../../bench/report/plots/roofline.ts";
import type { Plot } from "../../bench/report/plots/theme.ts";
import { parseResult, ReportError } from "../../bench/report/read.ts";
import { line, sample, shape } from "./report_sample.ts";

const SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9"><g id="clip0"/>' +
  '<g clip-path="url(#clip0)"/></svg>';

/** A pencil that draws the same for all. */
const draw = (plots: readonly Plot[]) =>
  Promise.resolve(new Map(plots.filter(({ spec }) => spec).map(({ id }) => [id, SVG])));

/** The page of one run, or of two. */
function pageOf(result: BenchResult, before: BenchResult | null = null): string {
  const comparison = before && compare(before, result);
  const plots = plotsOf(result, comparison);
  return page({
    after: { name: "after.json", result },
    before: before && { name: "before.json", result: before },
    comparison,
    plots,
    pictures: new Map([["roofline", SVG], ["fp8", SVG]]),
    undrawn: "nobody drew it",
  });
}

/** Runs the command in a folder that is then thrown away; gives what it said and left there. */
async function inFolder(
  files: Record<string, string>,
  args: readonly string[],
  pencil: typeof draw = draw,
): Promise<{ code: number; out: string[]; errors: string[]; left: string[] }> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(join(folder, name), text);
    }
    const out: string[] = [];
    const errors: string[] = [];
    const code = await report(args.map((arg) => arg.replace("@", folder + "/")), {
      draw: pencil,
      log: (text) => out.push(text.replaceAll(folder + "/", "")),
      complain: (text) => errors.push(text.replaceAll(folder + "/", "")),
    });
    const left = Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
    return { code, out, errors, left };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("report: a result is read as it was written", () => {
  const result = sample();
  assert.deepEqual(parseResult(JSON.stringify(result), "a.json"), result);
  const bare = { ...result, adapter: null, shaderCompiler: null, limits: null, lines: [] };
  assert.deepEqual(parseResult(JSON.stringify(bare), "a.json"), bare);
});

Deno.test("report: what is no result is refused in one line that says where and why", () => {
  const [first] = sample().lines;
  const withLine = (more: object) => ({ ...sample(), lines: [first, { ...first, ...more }] });
  const refusals: [unknown, RegExp][] = [
    ["{\n\n]", /^a\.json is not JSON: /],
    [[], /^a\.json is no result of deno task bench: /],
    [{ version: 1 }, /^a\.json is no result of deno task bench: /],
    [{ ...sample(), version: 2 }, /^a\.json has version 2 of the format, .* reads version 1/],
    [{ ...sample(), version: "1" }, /^a\.json has version "1" of the format/],
    [{ ...sample(), date: "yesterday" }, /: date is "yesterday", but should be a date$/],
    [{ ...sample(), machine: 7 }, /: machine is 7, but should be a string$/],
    [{ ...sample(), versions: { deno: 2 } }, /: versions\.deno is 2, but should be a string$/],
    [{ ...sample(), adapter: undefined }, /: adapter is missing, but should be an object$/],
    [{ ...sample(), shaderCompiler: "dxc" }, /: shaderCompiler is "dxc", .* naga or tint$/],
    [{ ...sample(), limits: {} }, /: limits\.readGbPerSecond is missing, .* above 0$/],
    [{ ...sample(), lines: {} }, /: lines is \{\}, but should be an array$/],
    [withLine({ kernel: null }), /: lines\[1\]\.kernel is null, but should be a string$/],
    [withLine({ shape: { batch: 1 } }), /: lines\[1\]\.shape\.qoLen is missing/],
    [withLine({ time: { ...first.time, median: 0 } }), /: lines\[1\]\.time\.median is 0, .* above/],
    [withLine({ time: { ...first.time, min: 1e9 } }), /: lines\[1\]\.time\.min .* the median$/],
    [withLine({ time: { ...first.time, raw: [null] } }), /: lines\[1\]\.time\.raw\[0\] is null/],
    [withLine({ wall: 5 }), /: lines\[1\]\.wall is 5, but should be an object$/],
    [withLine({ bytes: -1 }), /: lines\[1\]\.bytes is -1, but should be a number of at least 0$/],
    [withLine({ bound: "luck" }), /: lines\[1\]\.bound is "luck", .* bandwidth or arithmetic$/],
    [withLine({ error: null }), /: lines\[1\]\.error is null, but should be a number/],
  ];
  for (const [value, message] of refusals) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    assert.throws(() => parseResult(text, "a.json"), (error: unknown) => {
      assert.ok(error instanceof ReportError);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  }
});

Deno.test("report: bad input ends with code 2, one line, and nothing written", async () => {
  const good = JSON.stringify(sample());
  const cases: [string[], RegExp][] = [
    [[], /one or two result files are needed, and no file given; usage: deno task bench:report/],
    [["@a.json", "@a.json", "@a.json"], /and 3 files given/],
    [["@a.json", "--fast"], /--fast is unknown/],
    [["@a.json", "-o", "x"], /-o is unknown/],
    [["@a.json", "--out"], /--out needs a folder/],
    [["@missing.json"], /missing\.json cannot be read: /],
    [["@a.json", "@bad.json"], /bad\.json is not JSON: /],
    [["@a.json", "--out", "@bad.json"], /nothing can be written into bad\.json: /],
  ];
  for (const [args, message] of cases) {
    const { code, errors, left } = await inFolder({ "a.json": good, "bad.json": "no" }, args);
    assert.equal(code, 2);
    assert.equal(errors.length, 1);
    assert.match(errors[0], /^bench:report: [^\n]+$/);
    assert.match(errors[0], message);
    assert.deepEqual(left, ["a.json", "bad.json"]);
  }
});

Deno.test("report: pages and plots are written beside the last file, none left from before", async () => {
  const files = {
    "a.json": JSON.stringify(sample(0.8)),
    "b.json": JSON.stringify({ ...sample(), limits: null }),
    "b-roofline.svg": "of an earlier report",
  };
  const { code, out, left } = await inFolder(files, ["@a.json", "@b.json"]);
  assert.equal(code, 0);
  const written = ["b.html", "b-change.svg", "b-length.svg", "b-fp8.svg"];
  assert.deepEqual(left, ["a.json", "b.json", ...written].sort());
  assert.deepEqual(out, [
    "Roofline is left out: the run measured no limits of a GPU",
    ...written,
  ]);
});

Deno.test("report: without Vega there is a page without plots, and a failed plot is no excuse", async () => {
  const files = { "a.json": JSON.stringify(sample()) };
  const { code, out, left } = await inFolder(
    files,
    ["@a.json"],
    () => Promise.reject(new NoVegaError("no network")),
  );
  assert.equal(code, 0);
  assert.deepEqual(left, ["a.html", "a.json"]);
  assert.match(
    out[0],
    /^Roofline is left out: Vega, which draws it, cannot be loaded \(no network\)$/,
  );
  const broken = () => Promise.reject(new Error("bad specification"));
  await assert.rejects(inFolder(files, ["@a.json"], broken), /bad specification/);
});

Deno.test("report: the page holds every line's numbers, of both files", () => {
  const after = sample();
  const before = sample(0.83);
  const html = pageOf(after, before);
  for (const result of [before, after]) {
    for (const each of result.lines) {
      const { time, wall, share, error, kernel } = each;
      const texts = [duration(time.median), kernel];
      if (wall) texts.push(duration(wall.median));
      if (share !== undefined) texts.push(percent(share));
      if (error !== undefined) texts.push(error.toExponential(1));
      if (each.bytes > 0) texts.push(`>${digits(each.bytes / time.median / 1e3)}<`);
      if (each.flops > 0) texts.push(`>${digits(each.flops / time.median / 1e6)}<`);
      for (const text of texts) assert.ok(html.includes(text), `${text} is missing`);
    }
  }
  const rows = html.split('<div class="scroll">').slice(1).join().match(/<td class="share">/g);
  assert.equal(rows?.length, before.lines.length + after.lines.length);
  for (const text of ["4412 GB/s", "57.3 TFLOP/s", "61.8 TFLOP/s", "2.31 µs", "187 µs"]) {
    assert.ok(html.includes(text), `the limit ${text} is missing`);
  }
  const facts = ["NVIDIA H200, rented", "hopper", "naga", "deno 2.9.6", "1234abc+", "1.30.0"];
  for (const text of facts) assert.ok(html.includes(text), `${text} is missing`);
  assert.match(html, /recorded \[1\]/);
  assert.match(html, /<li>FlashInfer 0\.6 on an H200, flashinfer\.md<\/li>/);
  assert.match(html, /Speed over sequence length is left out: nobody drew it\./);
});

Deno.test("report: the page loads nothing", () => {
  const html = pageOf(sample(), sample());
  assert.doesNotMatch(html, /https?:/);
  assert.doesNotMatch(html, /<script|<link|<img|<iframe|@import|\bsrc=|\bhref=/);
  assert.doesNotMatch(html, /url\((?!#)/);
});

Deno.test("report: pictures within one page do not share names", () => {
  const html = pageOf(sample());
  assert.match(html, /id="roofline-clip0".*url\(#roofline-clip0\)/);
  assert.match(html, /id="fp8-clip0".*url\(#fp8-clip0\)/);
  assert.doesNotMatch(inline(SVG, "x"), /xmlns/);
  // A file of its own needs its namespace, and follows the reader's theme by itself.
  assert.match(standalone(SVG), /^<svg xmlns="[^"]+" width="9"><style>@media [^]*<\/style><g/);
});

Deno.test("report: names are text, whatever they hold", () => {
  const evil = `<script>alert("1")</script>&'`;
  const text = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;";
  const names = { family: evil, library: evil, dtype: evil, kernel: evil, recorded: evil };
  const base = sample();
  const evilLine = line(shape(1, 1, 64, 8, 8), "float16", 0.5);
  const measured = { ...evilLine, ...names, recorded: undefined };
  const result = (lines: BenchLine[]): BenchResult => ({
    ...base,
    machine: evil,
    commit: evil,
    runtime: evil,
    versions: { [evil]: evil },
    adapter: { ...base.adapter!, description: evil, vendor: evil },
    lines: [...lines, measured],
  });
  const html = pageOf(result([{ ...evilLine, ...names }]), result([{ ...measured, shape: null }]));
  assert.ok(html.includes(text));
  assert.doesNotMatch(html, /<script|alert\("/);
});

Deno.test("report: two machines are not one change", () => {
  const after = sample();
  assert.doesNotMatch(pageOf(after, sample()), /different machines/);
  assert.match(pageOf(after, { ...sample(), machine: "another" }), /different machines/);
});

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
