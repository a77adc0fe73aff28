/**
 * The tables of a report, as HTML: the machine, its limits, every line, and what changed.
 *
 * @module
 */

import type { BenchLine, BenchResult, Samples } from "../results.ts";
import { type Comparison, lineLabel } from "./compare.ts";
import {
  digits,
  duration,
  escapeHtml,
  gbPerSecond,
  headsText,
  percent,
  shortDtype,
  spread,
  tflops,
  tokensText,
} from "./format.ts";

const NOTHING = '<span class="nothing">–</span>';

/** A table that scrolls by itself where the page is narrow. */
function table(kind: string, head: readonly string[], rows: readonly (readonly string[])[]) {
  const headRow = head.map((cell) => `<th scope="col">${cell}</th>`).join("");
  const body = rows.map((cells) => `<tr>${cells.join("")}</tr>`).join("\n");
  return `<div class="scroll"><table class="${kind}">\n<thead><tr>${headRow}</tr></thead>\n` +
    `<tbody>\n${body}\n</tbody></table></div>`;
}

function cell(html: string, kind = ""): string {
  return kind === "" ? `<td>${html}</td>` : `<td class="${kind}">${html}</td>`;
}

/** Where and with what a run was made; a column for each run. */
export function machineTable(results: readonly BenchResult[], names: readonly string[]): string {
  const facts: [string, (result: BenchResult) => string][] = [
    ["machine", ({ machine }) => machine],
    ["adapter", ({ adapter }) => adapter === null ? "none" : adapterText(adapter)],
    ["shader compiler", ({ shaderCompiler }) => shaderCompiler ?? ""],
    ["runtime", ({ runtime }) => runtime],
    ["commit", ({ commit }) => commit],
    ["date", ({ date }) => date],
  ];
  const packages = new Set(results.flatMap(({ versions }) => Object.keys(versions)));
  for (const name of packages) facts.push([name, ({ versions }) => versions[name] ?? ""]);
  const rows = facts.map(([fact, of]) => [
    `<th scope="row">${escapeHtml(fact)}</th>`,
    ...results.map((result) => cell(escapeHtml(of(result)) || NOTHING)),
  ]);
  return table("facts", ["", ...names.map(escapeHtml)], rows);
}

function adapterText(adapter: NonNullable<BenchResult["adapter"]>): string {
  const { description, vendor, architecture, device, isFallback } = adapter;
  const rest = [vendor, architecture, device].filter((part) => part !== "").join(", ");
  const text = description === "" ? rest : rest === "" ? description : `${description} (${rest})`;
  return (text || "without a name") + (isFallback ? ", a software fallback" : "");
}

/** What the machine can do at most, as cards. */
export function limitCards({ limits }: BenchResult): string {
  if (limits === null) return "<p>This run measured no limits: it had no GPU.</p>";
  const cards = [
    ["read bandwidth", `${digits(limits.readGbPerSecond)} GB/s`],
    ["f32 FMA", `${digits(limits.f32Tflops)} TFLOP/s`],
    ["f16 FMA", limits.f16Tflops === null ? "no f16" : `${digits(limits.f16Tflops)} TFLOP/s`],
    ["empty dispatch", duration(limits.dispatchMicroseconds)],
    ["submit to readback", duration(limits.roundTripMicroseconds)],
  ];
  const items = cards.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`);
  return `<dl class="cards">${items.join("")}</dl>`;
}

/** Every line of a run, a table for each family, and the sources of recorded figures. */
export function lineTables({ lines }: BenchResult): string {
  if (lines.length === 0) return "<p>This run has no lines.</p>";
  const sources = [...new Set(lines.flatMap(({ recorded }) => recorded ?? []))];
  const families = [...new Set(lines.map(({ family }) => family))];
  const head = [
    "library",
    "shape",
    "dtype",
    "kernel",
    "time",
    "wall time",
    "GB/s",
    "TFLOP/s",
    "share of bound",
    "error",
  ];
  const tables = families.map((family) =>
    `<h3>${escapeHtml(family)}</h3>\n` +
    table("lines", head, lines.filter((line) => line.family === family).map((line) => row(line)))
  );
  function row(line: BenchLine): string[] {
    const { recorded, shape, wall, error } = line;
    const mark = recorded === undefined
      ? ""
      : `<br><span class="tag">recorded [${sources.indexOf(recorded) + 1}]</span>`;
    return [
      cell(escapeHtml(line.library) + mark, line.library === "kvasir" ? "ours" : ""),
      cell(
        shape === null
          ? NOTHING
          : `${tokensText(shape, line.family)}<small>${headsText(shape)}</small>`,
      ),
      cell(escapeHtml(shortDtype(line.dtype))),
      cell(escapeHtml(line.kernel), "kernel"),
      cell(timeText(line.time), "number"),
      cell(wall === undefined ? NOTHING : timeText(wall), "number"),
      cell(line.bytes === 0 ? NOTHING : digits(gbPerSecond(line)), "number"),
      cell(line.flops === 0 ? NOTHING : digits(tflops(line)), "number"),
      cell(shareText(line), "share"),
      cell(error === undefined ? NOTHING : error === 0 ? "0" : error.toExponential(1), "number"),
    ];
  }
  const notes = sources.map((source) => `<li>${escapeHtml(source)}</li>`).join("");
  const footer = notes === ""
    ? ""
    : `<h3>Recorded figures</h3><p>Not measured in this run; from:</p><ol>${notes}</ol>`;
  return tables.join("\n") + footer;
}

function timeText(samples: Samples): string {
  const range = samples.min === samples.max ? "" : `<small>${spread(samples)}</small>`;
  return `<b>${duration(samples.median)}</b>${range}`;
}

function shareText({ bound, share, fitsCache }: BenchLine): string {
  const small = [bound && `of ${bound}`, fitsCache && "fits the cache"].filter(Boolean).join(", ");
  const note = small === "" ? "" : `<small>${small}</small>`;
  if (share === undefined) return NOTHING + note;
  // A share above 1 (from a cache, or by tensor cores) fills the bar and keeps its number.
  const width = Math.min(100, 100 * share).toFixed(1);
  return `<span class="bar"><i style="width:${width}%"></i></span> ${percent(share)}${note}`;
}

/** What became faster and slower, and what only one of the files has. */
export function changeTable({ changes, onlyBefore, onlyAfter }: Comparison): string {
  const rows = changes.map(({ label, before, after, ratio, verdict }) => [
    cell(escapeHtml(label)),
    cell(timeText(before.time), "number"),
    cell(timeText(after.time), "number"),
    cell(`${digits(ratio)} ×`, `number ${verdict}`),
    cell(
      before.kernel === after.kernel
        ? escapeHtml(after.kernel)
        : `${escapeHtml(before.kernel)} → ${escapeHtml(after.kernel)}`,
      "kernel",
    ),
  ]);
  const head = ["line", "before", "after", "times as fast", "kernel"];
  return (rows.length === 0 ? "" : table("lines", head, rows)) +
    leftovers("Only before", onlyBefore) + leftovers("Only after", onlyAfter);
}

function leftovers(title: string, lines: readonly BenchLine[]): string {
  if (lines.length === 0) return "";
  const items = lines.map((line) =>
    `<li>${escapeHtml(lineLabel(line))} <small>${escapeHtml(line.kernel)}</small></li>`
  );
  return `<h3>${title}</h3><ul>${items.join("")}</ul>`;
}
