/** Variants of the shaders' source: what the bench reads of them, and what it does with one. */

import assert from "node:assert/strict";
import { BenchError } from "../../bench/bench_error.ts";
import { decodeCase } from "../../bench/gpu/decode.ts";
import { SMALL_DECODE_PROBLEMS } from "../../bench/gpu/decode_cases.ts";
import { caseName } from "../../bench/gpu/family.ts";
import { benchGpu } from "../../bench/gpu/main.ts";
import { edited, parseVariants } from "../../bench/gpu/variants.ts";
import { shaders } from "../../src/generated/shaders.js";
import { gpuTest } from "../support/device.ts";

const SOURCES = { a: "x + x;", b: "y;" };

Deno.test("parseVariants() puts the source as it is first, and edits every place in turn", () => {
  const edits = [{ file: "a", from: "x", to: "$&1" }, { file: "a", from: "1 +", to: "-" }];
  const [plain, other] = parseVariants(
    JSON.stringify([{ name: "other", edits, tuning: { rows: 2 } }]),
    SOURCES,
  );
  assert.deepEqual(edited(SOURCES, plain), {});
  assert.deepEqual(edited(SOURCES, other), { a: "$&- $&1;" });
  assert.deepEqual(other.tuning, { rows: 2 });
  assert.deepEqual(SOURCES, { a: "x + x;", b: "y;" });
});

Deno.test("parseVariants() refuses in one line what would try nothing", () => {
  const of = (file: string, from: string, to: string) =>
    JSON.stringify([{ name: "n", edits: [{ file, from, to }] }]);
  const refusals: [string, RegExp][] = [
    ["[", /^--variants: no JSON, /],
    ["{}", /^--variants: expected a list/],
    ["[null]", /^--variants: number 1 has no name/],
    ['[{ "name": "n" }, { "edits": [] }]', /^--variants: number 2 has no name/],
    ['[{ "name": "n", "edits": "a" }]', /^--variants: number 1 has no name, or edits/],
    ['[{ "name": "n", "edits": [{ "file": "a" }] }]', /^variant n: nothing in a is to change/],
    [of("c", "x", "y"), /^variant n: there is no shader c$/],
    [of("b", "x", "y"), /^variant n: nothing in b is to change: x$/],
    [of("b", "y", "y"), /^variant n: nothing in b/],
    [of("b", "", "y"), /^variant n: nothing in b/],
  ];
  for (const [text, message] of refusals) {
    assert.throws(() => parseVariants(text, SOURCES), (error: unknown) => {
      assert.ok(error instanceof BenchError, text);
      assert.match(error.message, message);
      return true;
    });
  }
});

gpuTest("variants are checked and ranked, and leave the source as it was", async () => {
  const path = await Deno.makeTempFile();
  const { decode } = shaders;
  const edit = (from: string, to: string) => [{ file: "decode", from, to }];
  const variants = [
    { name: "a comment", edits: edit("fn main(", "/* the same */ fn main(") },
    { name: "nothing done", edits: edit("fn main(", "fn main_of_none(") },
    { name: "no result", edits: edit("encode_quad(", "encode_quad(0.5 * ") },
  ];
  await Deno.writeTextFile(path, JSON.stringify(variants));
  const lines: string[] = [];
  const { log } = console;
  console.log = (line) => lines.push(line);
  try {
    const wanted = SMALL_DECODE_PROBLEMS.map(decodeCase).find(({ dtype }) => dtype === "float16")!;
    const options = { quick: true, sweep: null, profile: false, peers: false };
    const filter = caseName(wanted);
    const result = (await benchGpu({ ...options, filter, variants: path }, () => [wanted]))!;
    const entries = Object.fromEntries(result.sweep.map((entry) => [entry.variant, entry]));
    assert.equal(result.sweep.length, 4);
    assert.ok(entries["as it is"].line!.time.median > 0);
    assert.ok(entries["a comment"].line!.time.median > 0);
    assert.match(entries["nothing done"].failure!, /kernel decode/);
    assert.match(entries["no result"].failure!, /is wrong/);
    assert.equal(shaders.decode, decode);
    result.backend.destroy();
  } finally {
    console.log = log;
    await Deno.remove(path);
  }
  assert.ok(lines.some((line) => /^ {4}a comment \{\} +\d+\.\d us {2}decode\./.test(line)));
});
