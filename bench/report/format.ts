/**
 * How the report writes numbers and names, the same in tables and on plots.
 *
 * @module
 */

import type { BenchLine, BenchShape } from "../results.ts";

/** Three significant digits, without an exponent where that reads well. */
export function digits(value: number): string {
  if (value === 0) return "0";
  if (value < 0.001) return value.toExponential(1);
  const whole = Math.floor(Math.log10(value)) + 1;
  return value.toFixed(Math.min(6, Math.max(0, 3 - whole)));
}

/** A time, given in microseconds. */
export function duration(microseconds: number): string {
  const [value, unit] = timeUnit(microseconds, microseconds);
  return `${value} ${unit}`;
}

/** From the least to the greatest time, in one unit. */
export function spread({ min, max }: { min: number; max: number }): string {
  const [least, unit] = timeUnit(min, max);
  return `${least} to ${timeUnit(max, max)[0]} ${unit}`;
}

/** `value` in the unit that suits `scale`; both in microseconds. */
function timeUnit(value: number, scale: number): [string, string] {
  if (scale < 1e3) return [digits(value), "µs"];
  return scale < 1e6 ? [digits(value / 1e3), "ms"] : [digits(value / 1e6), "s"];
}

/** Bytes per microsecond are megabytes per second; 1000 of these are one GB/s. */
export function gbPerSecond({ bytes, time }: BenchLine): number {
  return bytes / time.median / 1e3;
}

/** TFLOP/s. */
export function tflops({ flops, time }: BenchLine): number {
  return flops / time.median / 1e6;
}

/** A share of 1 as per cent. */
export function percent(share: number): string {
  return `${Number((100 * share).toFixed(share < 0.1 ? 1 : 0))} %`;
}

/** The name of a dtype as people say it: `float8_e4m3fn` is e4m3. */
export function shortDtype(dtype: string): string {
  return dtype.replace(/^float8_(e4m3|e5m2).*$/, "$1").replace(/^float(\d+)$/, "f$1")
    .replace(/^bfloat16$/, "bf16");
}

/** A shape, in words that need no legend. */
export function shapeText(shape: BenchShape, family: string = ""): string {
  return `${tokensText(shape, family)}, ${headsText(shape)}`;
}

/** How many requests of how many tokens. */
export function tokensText(
  { batch, qoLen, kvLen, kvTokens }: BenchShape,
  family: string = "",
): string {
  const unit = family === "merge" ? "states" : "keys";
  const tokens = qoLen === 1
    ? `${kvTokens === undefined ? kvLen : `1 to ${kvLen}`} ${unit}`
    : qoLen === kvLen
    ? `${kvLen} tokens`
    : `${qoLen} tokens over ${kvLen} keys`;
  return `${batch} × ${tokens}`;
}

/** The part of a shape that does not grow with the sequence. */
export function headsText({ numQoHeads, numKvHeads, headDim }: BenchShape): string {
  return `${numQoHeads}/${numKvHeads} heads, D ${headDim}`;
}

/** The library as a series is called: recorded figures stay apart from measured ones. */
export function libraryText({ library, recorded }: BenchLine): string {
  return recorded === undefined ? library : `${library} (recorded)`;
}

/** What stands in a report for a person to read, safe within HTML and its attributes. */
export function escapeHtml(text: string): string {
  const names: Record<string, string> = {
    "&": "amp",
    "<": "lt",
    ">": "gt",
    '"': "quot",
    "'": "#39",
  };
  return text.replace(/[&<>"']/g, (character) => `&${names[character]};`);
}
