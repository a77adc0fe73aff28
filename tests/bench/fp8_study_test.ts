/** The study of FP8 caches, small: what it measures, how it writes, and that its document has its places. */

import assert from "node:assert/strict";
import { BenchError } from "../../bench/bench_error.ts";
import { cacheName } from "../../bench/fp8_study/caches.ts";
import { fillBlocks } from "../../bench/fp8_study/document.ts";
import { makeInputs, normals } from "../../bench/fp8_study/inputs.ts";
import { plotsOf } from "../../bench/fp8_study/plots.ts";
import { rotated } from "../../bench/fp8_study/prepare.ts";
import { decibels, reference } from "../../bench/fp8_study/reference.ts";
import { QUICK, runStudy } from "../../bench/fp8_study/study.ts";
import { markdownTable, tablesOf } from "../../bench/fp8_study/tables.ts";
import { oracle } from "../support/oracle.ts";

const result = await runStudy(QUICK);

/** Signal to noise on a kind of data. */
function sqnrOf(kind: string, name: string): number {
  return decibels(
    result.kinds.find((one) => one.kind === kind && cacheName(one.cache) === name)!,
  );
}

Deno.test("fp8:study: the reference is the tests' own", () => {
  const sizes = { length: 37, numKvHeads: 2, numQoHeads: 6, headDim: 16 };
  const { q, k, v } = makeInputs("outliers", sizes, 3);
  const { out, lse } = reference({ ...sizes, q, k, v });
  const expected = oracle({
    ...sizes,
    numRequests: 1,
    maxKvLen: sizes.length,
    kvLayout: "HND",
    lseBase: "ln",
    q,
    k,
    v,
  });
  out.forEach((x, i) => assert.ok(Math.abs(x - expected.out[i]) < 1e-12));
  lse.forEach((x, i) => assert.ok(Math.abs(x - expected.lse[i]) < 1e-12));
});

Deno.test("fp8:study: finer formats have less noise, and float32 next to none", () => {
  for (const kind of ["normal", "heavy tails", "unequal heads", "outliers", "offsets"]) {
    const rows = ["f32", "f16", "bf16", "e4m3, a head", "e5m2, no scale"];
    const noise = rows.map((name) => sqnrOf(kind, name));
    assert.ok(noise[0] > 100, `${kind}: ${noise}`);
    assert.ok(
      noise[0] > noise[1] && noise[1] > noise[2] && noise[2] > noise[3],
      `${kind}: ${noise}`,
    );
    // Offsets are hard for both.
    if (kind !== "offsets") assert.ok(noise[3] > noise[4], `${kind}: ${noise}`);
  }
});

Deno.test("fp8:study: scales and preparations do what docs/fp8.md says", () => {
  const prepared = (kind: string, way: string) =>
    decibels(result.prepared.find((one) => one.kind === kind && one.preparation === way)!);
  assert.ok(
    sqnrOf("unequal heads", "e4m3, a head") > 10 + sqnrOf("unequal heads", "e4m3, no scale"),
  );
  const alike = prepared("outliers, q alike", "rotated");
  assert.ok(alike > prepared("outliers, q alike", "as they are") + 5);
  assert.ok(prepared("outliers", "rotated") < prepared("outliers", "as they are") - 10);
  assert.ok(prepared("offsets", "mean taken off") > prepared("offsets", "as they are") + 10);
  for (const { data, dtype, margin, sqnr } of result.scales) {
    const best = dtype === "float8_e4m3fn" ? 31.5 : 25.6;
    if (margin >= 0 && margin <= 4) {
      assert.ok(Math.abs(sqnr - best) < 1, `${data} ${dtype} ${sqnr}`);
    }
  }
});

Deno.test("fp8:study: a second run gives the same", async () => {
  assert.deepEqual(await runStudy(QUICK), result);
});

Deno.test("fp8:study: a rotation keeps products, and undoes itself", () => {
  const [a, b] = [normals(64, 1), normals(64, 2)];
  const ones = new Float32Array(64).fill(1);
  const signs = normals(64, 3).map(Math.sign);
  const dot = (x: Float32Array, y: Float32Array) =>
    x.reduce((sum, value, i) => sum + value * y[i], 0);
  const difference = dot(rotated(a, signs), rotated(b, signs)) - dot(a, b);
  assert.ok(Math.abs(difference) < 1e-5);
  const back = rotated(rotated(a, ones), ones);
  back.forEach((x, i) => assert.ok(Math.abs(x - a[i]) < 1e-6));
  // One channel becomes all, of one size.
  const spike = new Float32Array(64);
  spike[5] = 8;
  assert.ok(rotated(spike, signs).every((x) => Math.abs(x) === 1));
});

Deno.test("fp8:study: tables are padded, and fill the places of docs/fp8.md", async () => {
  assert.equal(
    markdownTable([["a", "long name"], ["bcdef", "1"]]),
    "| a     | long name |\n| ----- | --------- |\n| bcdef | 1         |",
  );
  const tables = tablesOf(result);
  const document = await Deno.readTextFile(new URL("../../docs/fp8.md", import.meta.url));
  const filled = fillBlocks(document, tables);
  for (const table of tables.values()) assert.ok(filled.includes(`\n\n${table}\n\n`));
  assert.equal(fillBlocks(filled, tables), filled);
  // Nothing else changes: without its tables, the document is the same.
  const none = new Map([...tables.keys()].map((name) => [name, ""]));
  assert.equal(fillBlocks(filled, none), fillBlocks(document, none));
  for (const { id, spec } of plotsOf(result)) {
    assert.ok(spec);
    assert.ok(document.includes(`(plots/fp8-${id}.svg)`), id);
  }
});

Deno.test("fp8:study: a document without its places is refused", () => {
  const blocks = new Map([["a", "x"]]);
  const place = "<!-- fp8:study a -->\n<!-- end of a -->\n";
  for (const text of ["", "<!-- fp8:study a -->", place + place]) {
    assert.throws(() => fillBlocks(text, blocks), BenchError);
  }
});
