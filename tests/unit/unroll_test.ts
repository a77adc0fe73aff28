/** The pass that unrolls marked loops. */

import assert from "node:assert/strict";
import { evaluate } from "../../src/webgpu/constant_expression.ts";
import { unroll } from "../../src/webgpu/unroll.ts";

/** Without white space, of which the pass may write what it likes. */
function dense(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}

Deno.test("unroll() leaves a source without marks as it is", () => {
  const source = "// for { \nfor (var i = 0u; i < 4u; i++) { a += i; }\n";
  assert.equal(unroll(source, {}), source);
});

Deno.test("unroll() repeats the body with a constant counter", () => {
  const source = "x(); @unroll for (var i = 0u; i < 3u; i++) { a[i] += i; } y();";
  const expected =
    "x(); { const i = 0u; a[i] += i; } { const i = 1u; a[i] += i; } { const i = 2u; a[i] += i; } y();";
  assert.equal(dense(unroll(source, {})), expected);
});

Deno.test("unroll() knows constants, sums, products and other steps", () => {
  const counters = (header: string) =>
    [
      ...unroll(`@unroll for (${header}) { use(i); }`, { ROWS: 4, HEADS: 3 })
        .matchAll(/const i = (\d+)u/g),
    ].map(([, i]) => Number(i));
  assert.deepEqual(counters("var i = 0u; i < ROWS; i++"), [0, 1, 2, 3]);
  assert.deepEqual(counters("var i = 1u; i < ROWS + 2u; i += 2u"), [1, 3, 5]);
  assert.deepEqual(counters("var i = 0u; i < ROWS * HEADS; i += HEADS"), [0, 3, 6, 9]);
  assert.deepEqual(counters("var i = 1u; i < 16u; i *= 2u"), [1, 2, 4, 8]);
  assert.deepEqual(counters("var i = HEADS; i < HEADS; i++"), []);
  assert.deepEqual(counters("var  i=0;i<2;i++"), [0, 1]);
});

Deno.test("unroll() expands loops in loops, which may use the outer counter", () => {
  const source = `@unroll for (var i = 0u; i < 2u; i++) {
    before(i);
    @unroll for (var j = i; j < 2u; j++) { if (i < j) { use(i, j); } }
    after(i);
  }`;
  const calls = [...unroll(source, {}).matchAll(/(before|use|after)|const (\w) = (\d)u/g)]
    .map(([, call, counter, value]) => call ?? `${counter}${value}`);
  assert.deepEqual(
    calls,
    ["i0", "before", "j0", "use", "j1", "use", "after", "i1", "before", "j1", "use", "after"],
  );
});

Deno.test("unroll() leaves loops that are not marked, also within marked ones", () => {
  const source =
    "@unroll for (var i = 0u; i < 2u; i++) { for (var t = 0u; t < N; t++) { use(t); } }";
  const copies = unroll(source, {}).match(/for \(var t = 0u; t < N; t\+\+\)/g);
  assert.equal(copies?.length, 2);
});

Deno.test("unroll() is not misled by braces in comments", () => {
  const source = `@unroll for (var i = 0u; i < 2u; i++) {
    a(i); // not the end: }
    b(i);
  }
  c();`;
  const calls = [...unroll(source, {}).matchAll(/\b([abc])\(/g)].map(([, call]) => call);
  assert.deepEqual(calls, ["a", "b", "a", "b", "c"]);
});

Deno.test("unroll() expands one marked loop after another", () => {
  const loop = "@unroll for (var i = 0u; i < 2u; i++) { use(i); }";
  assert.equal(unroll(`${loop} middle(); ${loop}`, {}).match(/use\(i\)/g)?.length, 4);
});

Deno.test("unroll() refuses what it cannot unroll", () => {
  const refused: readonly (readonly [source: string, error: typeof Error, message: RegExp])[] = [
    ["@unroll for (var i = 0u; j < 2u; i++) {}", SyntaxError, /another variable/],
    ["@unroll for (var i = 0u; i < 2u; j++) {}", SyntaxError, /another variable/],
    ["@unroll for (var i = 0u; i <= 2u; i++) {}", ReferenceError, /"= 2u"/],
    ["@unroll while (true) {}", SyntaxError, /not a loop/],
    ["@unroll for (var i = 0u; i < 2u; i++) { break; }", SyntaxError, /break/],
    ["@unroll for (var i = 0u; i < 2u; i++) { continue; }", SyntaxError, /continue/],
    ["@unroll for (var i = 0u; i < 2u; i++) { {", SyntaxError, /never closed/],
    ["@unroll for (var i = 0u; i < N; i++) {}", ReferenceError, /"N"/],
    ["@unroll for (var i = 0u; i < 1.5; i++) {}", ReferenceError, /whole number/],
    ["@unroll for (var i = 0u; i < 5000u; i++) {}", RangeError, /copies/],
    ["@unroll for (var i = 0u; i < 4u; i += 0u) {}", RangeError, /copies/],
  ];
  for (const [source, error, message] of refused) {
    assert.throws(() => unroll(source, {}), (thrown) => {
      assert.ok(thrown instanceof error, source);
      assert.match(thrown.message, message);
      return true;
    });
  }
});

Deno.test("evaluate() knows the order of operations", () => {
  const constants = { N: 12, s: 1 };
  for (
    const [expression, value] of [
      ["1u + 2 * 3", 7],
      ["(1 + 2) * 3u", 9],
      ["N >> (s + 1u)", 3],
      ["N - 2 - 3", 7],
      ["N / 5", 2],
      ["1u << s", 2],
    ] as const
  ) {
    assert.equal(evaluate(expression, constants), value, expression);
  }
  for (const wrong of ["", "N +", "(N", "N)", "M", "1.5", "N % 2", "1 2"]) {
    assert.throws(() => evaluate(wrong, constants), ReferenceError, wrong);
  }
});
