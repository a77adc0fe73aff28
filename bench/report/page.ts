/**
 * The report as one HTML page that needs nothing else: no network, no script, no other file.
 *
 * @module
 */

import type { BenchResult } from "../results.ts";
import type { Comparison } from "./compare.ts";
import { inline, type Pictures } from "./draw.ts";
import { escapeHtml } from "./format.ts";
import type { Plot } from "./plots/theme.ts";
import { STYLE } from "./style.ts";
import { changeTable, limitCards, lineTables, machineTable } from "./tables.ts";

/** A result with the name that the page calls it. */
export interface NamedResult {
  readonly name: string;
  readonly result: BenchResult;
}

/** What a page is made of. */
export interface PageParts {
  readonly after: NamedResult;
  /** The earlier run, where two are compared. */
  readonly before: NamedResult | null;
  readonly comparison: Comparison | null;
  readonly plots: readonly Plot[];
  readonly pictures: Pictures;
  /** Why plots that could be drawn were not; empty where they were. */
  readonly undrawn: string;
}

/** The page. */
export function page(parts: PageParts): string {
  const { after, before, comparison } = parts;
  const runs = before === null ? [after] : [before, after];
  const { machine, date, commit } = after.result;
  const made = [date.slice(0, 10), commit && `commit ${commit}`].filter(Boolean).join(", ");
  const title = `Bench: ${machine}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
<p class="sub">${escapeHtml(made)}</p>
${before === null ? "" : warning(before.result, after.result)}
<h2>Measured limits</h2>
${limitCards(after.result)}
<h2>Machine</h2>
${machineTable(runs.map(({ result }) => result), runs.map(({ name }) => name))}
<h2>Plots</h2>
${parts.plots.map((plot) => figure(plot, parts)).join("\n")}
${comparison === null ? "" : `<h2>Before and after</h2>\n${changeTable(comparison)}`}
<h2>Every line${before === null ? "" : `: ${escapeHtml(after.name)}`}</h2>
<p class="sub">Times are of the device that computes: the median, and the least and greatest. Wall
time is that of a whole call until its result is read. Shares are of what this run measured.</p>
${lineTables(after.result)}
${before === null ? "" : earlier(before)}
</body>
</html>
`;
}

/** A ratio between two machines says nothing about a change of the code. */
function warning(before: BenchResult, after: BenchResult): string {
  const adapter = ({ adapter }: BenchResult) => JSON.stringify(adapter);
  if (before.machine === after.machine && adapter(before) === adapter(after)) return "";
  return '<p class="notice">The two files are of different machines: ratios between them compare ' +
    "these, not the code.</p>";
}

function earlier({ name, result }: NamedResult): string {
  return `<details>\n<summary><h2>Every line: ${escapeHtml(name)}</h2></summary>\n` +
    `${limitCards(result)}\n${lineTables(result)}\n</details>`;
}

function figure(plot: Plot, { pictures, undrawn }: PageParts): string {
  const svg = pictures.get(plot.id);
  if (svg === undefined) {
    return `<p class="sub">${escapeHtml(plot.title)} is left out: ` +
      `${escapeHtml(plot.leftOut || undrawn)}.</p>`;
  }
  return `<h3>${escapeHtml(plot.title)}</h3>\n<figure id="${plot.id}">${inline(svg, plot.id)}` +
    `<figcaption>${escapeHtml(plot.caption)}</figcaption></figure>`;
}
