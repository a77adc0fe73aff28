/** The report of a bench: what it refuses, and what its page holds. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { BenchError } from "../../bench/bench_error.ts";
import type { BenchLine, BenchResult } from "../../bench/results.ts";
import { compare } from "../../bench/report/compare.ts";
import { inline, NoVegaError, standalone } from "../../bench/report/draw.ts";
import { digits, duration, percent } from "../../bench/report/format.ts";
import { report } from "../../bench/report/main.ts";
import { page } from "../../bench/report/page.ts";
import { plotsOf } from "../../bench/report/plots.ts";
import type { Plot } from "../../bench/report/plots/theme.ts";
import { parseResult } from "../../bench/report/read.ts";
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
      assert.ok(error instanceof BenchError);
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
