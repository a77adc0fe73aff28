/**
 * Unrolls the loops of a shader that are marked `@unroll`.
 *
 * naga puts a countdown on every loop and clamps dynamic indices, which keeps drivers from unrolling
 * (11 to 47 times slower on an H200), so inner loops must reach it unrolled. The body is repeated with
 * the counter as a `const`: indices stay constant expressions. It runs before linking, because the
 * linker drops attributes that it does not know.
 *
 * @module
 */

import { evaluate } from "./constant_expression.ts";

/** Values of names in loop headers. */
export type UnrollConstants = Readonly<Record<string, number>>;

const HEADER =
  /@unroll\s+for\s*\(\s*var\s+(\w+)\s*=\s*([^;]+);\s*(\w+)\s*<\s*([^;]+);\s*(\w+)\s*(\+\+|\+=|\*=)\s*([^)]*)\)\s*\{/g;
const COMMENTS = /\/\/[^\n]*/g;
/** A bound on the copies of one loop: more is a mistake in its header. */
const MAX_COPIES = 1024;

/**
 * Expands every `@unroll for (var i = A; i < B; i++) { ... }` (or `i += C`, `i *= C`) of `source`.
 *
 * @param source WGSL or WESL.
 * @param constants Values of the names that A, B and C use, beyond outer marked loops' counters.
 * @returns The source without marked loops, and without comments if it had any such loop.
 */
export function unroll(source: string, constants: UnrollConstants): string {
  if (!source.includes("@unroll")) return source;
  // Comments may hold braces, and repeating them helps nobody.
  return expand(source.replace(COMMENTS, ""), constants);
}

function expand(source: string, constants: UnrollConstants): string {
  let result = "";
  let position = 0;
  HEADER.lastIndex = 0;
  for (let match = HEADER.exec(source); match; match = HEADER.exec(source)) {
    const [header, counter, first, tested, bound, stepped, operator, step] = match;
    if (tested !== counter || stepped !== counter) {
      throw new SyntaxError(`@unroll: the loop over ${counter} tests or steps another variable`);
    }
    const bodyStart = match.index + header.length;
    const bodyEnd = closingBrace(source, bodyStart);
    const body = source.slice(bodyStart, bodyEnd);
    if (/\b(break|continue)\b/.test(body)) {
      throw new SyntaxError(`@unroll: the loop over ${counter} has a break or continue`);
    }
    result += source.slice(position, match.index);
    const values = counterValues(first, bound, operator, step, constants);
    for (const value of values) {
      const copy = expand(body, { ...constants, [counter]: value });
      result += `{ const ${counter} = ${value}u;${copy}}\n`;
    }
    position = bodyEnd + 1;
    HEADER.lastIndex = position;
  }
  const rest = source.slice(position);
  if (rest.includes("@unroll")) {
    throw new SyntaxError("@unroll: not a loop `for (var i = A; i < B; i++) {`");
  }
  return result + rest;
}

function counterValues(
  first: string,
  bound: string,
  operator: string,
  step: string,
  constants: UnrollConstants,
): number[] {
  const end = evaluate(bound, constants);
  const stride = operator === "++" ? 1 : evaluate(step, constants);
  const values: number[] = [];
  let value = evaluate(first, constants);
  while (value < end) {
    values.push(value);
    if (values.length > MAX_COPIES) {
      throw new RangeError(`@unroll: more than ${MAX_COPIES} copies up to ${bound}`);
    }
    value = operator === "*=" ? value * stride : value + stride;
  }
  return values;
}

/** The index of the brace that closes the block whose inside begins at `start`. */
function closingBrace(source: string, start: number): number {
  let depth = 1;
  for (let i = start; i < source.length; i++) {
    if (source[i] === "{") depth++;
    else if (source[i] === "}" && --depth === 0) return i;
  }
  throw new SyntaxError("@unroll: a loop's brace is never closed");
}
