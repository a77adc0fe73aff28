/**
 * The study's tables in Markdown, as `deno fmt` would write them.
 *
 * @module
 */

import { cacheName } from "./caches.ts";
import { decibels, type Errors } from "./reference.ts";
import type { StudyResult } from "./study.ts";

/** A table whose columns are padded. */
export function markdownTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(3, ...rows.map((row) => row[column].length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`;
  const [head, ...body] = rows;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n");
}

/** One decimal; digits beyond it differ from draw to draw. */
function db(value: number): string {
  return value === Infinity ? "exact" : value.toFixed(1);
}

/** Two digits. */
function drift({ kl }: Errors): string {
  return kl < 1e-12 ? "0" : kl.toExponential(1);
}

/** Two digits of per cent. */
function percents(share: number): string {
  return `${Number((100 * share).toPrecision(2))} %`;
}

/** A row for each cache, a column for each of `columns`. */
function byCache<Result extends Errors & { readonly cache: Parameters<typeof cacheName>[0] }>(
  results: readonly Result[],
  columnOf: (result: Result) => string,
  cellOf: (result: Result) => string,
): string {
  const columns = [...new Set(results.map(columnOf))];
  const names = [...new Set(results.map(({ cache }) => cacheName(cache)))];
  const cell = (name: string, column: string) =>
    cellOf(results.find((one) => cacheName(one.cache) === name && columnOf(one) === column)!);
  return markdownTable([
    ["cache, a scale for", ...columns],
    ...names.map((name) => [name, ...columns.map((column) => cell(name, column))]),
  ]);
}

function preparedTable({ prepared }: StudyResult): string {
  const kinds = [...new Set(prepared.map(({ kind }) => kind))];
  const ways = [...new Set(prepared.map(({ preparation }) => preparation))];
  const cells = (kind: string) =>
    ways.map((way) => {
      const one = prepared.find((result) => result.kind === kind && result.preparation === way)!;
      return `${db(decibels(one))}, ${drift(one)}`;
    });
  return markdownTable([
    ["data", ...ways],
    ...kinds.map((kind) => [kind, ...cells(kind)]),
  ]);
}

/** Powers of two that scales are made larger by, in the table. */
const MARGINS: readonly number[] = [1, 4, 10];

function percentileTable({ percentiles, scales }: StudyResult): string {
  const names = [...new Set(percentiles.map(({ percentile }) => percentile))];
  const rows = percentiles.filter(({ percentile }) => percentile === 100).map((row) => {
    const { data, dtype } = row;
    const mine = (one: { data: string; dtype: string }) => one.data === data && one.dtype === dtype;
    const tried = percentiles.filter(mine).map(({ sqnr }) => db(sqnr));
    const larger = MARGINS.map((margin) =>
      db(scales.find((one) => mine(one) && one.margin === margin)!.sqnr)
    );
    return [`${data}, ${dtype.slice("float8_".length, "float8_e4m3".length)}`, ...tried, ...larger];
  });
  const heads = names.map((name) => name === 100 ? "largest" : `${name} %`);
  const margins = MARGINS.map((margin) => `${2 ** margin} x largest`);
  return markdownTable([["data, format", ...heads, ...margins], ...rows]);
}

/** The tables by the names of their places in docs/fp8.md. */
export function tablesOf(result: StudyResult): ReadonlyMap<string, string> {
  const kind = (one: { kind: string }) => one.kind;
  const length = (one: { length: number }) => `${one.length} keys`;
  const error = (one: Errors) => `${percents(one.mean)}, ${percents(one.max)}`;
  const main = result.kinds.filter(({ cache }) => cache.scale !== "between");
  const rows = ["head", "token", "between"];
  const tokens = result.kinds.filter(({ cache }) => rows.includes(cache.scale));
  return new Map([
    ["sqnr", byCache(main, kind, (one) => db(decibels(one)))],
    ["kl", byCache(main, kind, drift)],
    ["errors", byCache(main, kind, error)],
    ["tokens", byCache(tokens, kind, (one) => db(decibels(one)))],
    ["lengths", byCache(result.lengths, length, (one) => `${db(decibels(one))}, ${drift(one)}`)],
    ["prepared", preparedTable(result)],
    ["scales", percentileTable(result)],
  ]);
}
