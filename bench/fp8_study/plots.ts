/**
 * The study's plots.
 *
 * @module
 */

import { COLOR, colorScale, type Plot, type Spec, TOP, withTheme } from "../report/plots/theme.ts";
import { type Cache, cacheName } from "./caches.ts";
import { decibels } from "./reference.ts";
import type { StudyResult } from "./study.ts";

/** What the plots show of the caches: tables have all. */
function isShown({ dtype, scale }: Cache): boolean {
  return dtype === "bfloat16" || scale === "head" || scale === "token";
}

/** The plots, of which ids are parts of file names. */
export function plotsOf(result: StudyResult): readonly Plot[] {
  const plot = (id: string, title: string, spec: Spec): Plot => ({
    id,
    title,
    caption: "",
    spec,
    leftOut: "",
  });
  const { kinds, prepared, lengths, scales } = result;
  return [
    plot(
      "kinds",
      "Signal to noise of the output, by data and cache",
      bars(
        kinds.filter(({ cache }) => isShown(cache))
          .map((one) => ({ group: one.kind, series: cacheName(one.cache), sqnr: decibels(one) })),
        "cache, a scale for",
      ),
    ),
    plot(
      "prepared",
      "Signal to noise of the output with e4m3, by what is done to q and k",
      bars(
        prepared.map((one) => ({ group: one.kind, series: one.preparation, sqnr: decibels(one) })),
        "q and k",
      ),
    ),
    plot(
      "lengths",
      "Signal to noise of the output over the length of the context",
      lines(
        lengths.filter(({ cache }) => isShown(cache))
          .map((one) => ({ x: one.length, series: cacheName(one.cache), sqnr: decibels(one) })),
        {
          title: "length (keys)",
          scale: { type: "log", base: 2, nice: false },
          axis: { values: [...new Set(lengths.map(({ length }) => length))], format: "d" },
        },
        "cache, a scale for",
      ),
    ),
    plot(
      "scales",
      "Signal to noise of quantizing, over the size of the scale",
      lines(
        scales.map(({ data, dtype, margin, sqnr }) => ({
          x: margin,
          series: `${dtype.slice(7, 11)}, ${data}`,
          sqnr,
        })),
        {
          title: "scale over that of the largest value (powers of two)",
          scale: { nice: false },
          axis: { tickCount: 10 },
        },
        "format, data",
      ),
    ),
  ];
}

const SQNR: Spec = {
  field: "sqnr",
  type: "quantitative",
  title: "signal to noise (dB)",
  scale: { zero: true },
  axis: { tickCount: 6, format: "d" },
};

function seriesOf(points: readonly { readonly series: string }[], title: string): Spec {
  const names = [...new Set(points.map(({ series }) => series))];
  return { field: "series", type: "nominal", scale: colorScale(names), title, legend: TOP };
}

function bars(
  points: readonly { readonly group: string; readonly series: string; readonly sqnr: number }[],
  title: string,
): Spec {
  const y = {
    field: "group",
    type: "nominal",
    sort: null,
    title: null,
    scale: { paddingInner: 0.25 },
    axis: { labelColor: COLOR.ink, ticks: false, domain: false, labelPadding: 8 },
  };
  const names = [...new Set(points.map(({ series }) => series))];
  const yOffset = { field: "series", type: "nominal", scale: { domain: names }, sort: null };
  const values = points.map((point) => ({ ...point, text: point.sqnr.toFixed(1) }));
  return withTheme({
    width: 560,
    height: { step: 15 },
    data: { values },
    layer: [
      {
        mark: { type: "bar", cornerRadiusEnd: 2 },
        encoding: { x: SQNR, y, yOffset, color: seriesOf(points, title) },
      },
      {
        mark: { type: "text", align: "left", dx: 5, fontSize: 11, color: COLOR.ink },
        encoding: { x: SQNR, y, yOffset, text: { field: "text" } },
      },
    ],
  });
}

function lines(
  points: readonly { readonly x: number; readonly series: string; readonly sqnr: number }[],
  x: Spec,
  title: string,
): Spec {
  return withTheme({
    width: 560,
    height: 240,
    data: { values: points },
    encoding: {
      x: { field: "x", type: "quantitative", ...x },
      y: SQNR,
      color: seriesOf(points, title),
    },
    layer: [
      { mark: { type: "line", strokeWidth: 2 } },
      { mark: { type: "point", filled: true, size: 30, opacity: 1 } },
    ],
  });
}
