/**
 * Speed over the length of the sequence: one panel for each problem that was run at several lengths.
 *
 * @module
 */

import type { BenchLine, BenchResult, BenchShape } from "../../results.ts";
import { gbPerSecond, headsText, libraryText, shortDtype, tflops } from "../format.ts";
import { colorScale, type Plot, seriesNames, type Spec, TOP, withTheme } from "./theme.ts";

/** One panel. */
export interface LengthPanel {
  readonly title: string;
  /** One token of each request moves bytes; many tokens compute. */
  readonly unit: "GB/s" | "TFLOP/s";
  readonly points: readonly LengthPoint[];
}

/** One speed in a panel. */
export interface LengthPoint {
  readonly kvLen: number;
  readonly speed: number;
  readonly library: string;
  readonly dtype: string;
}

/** The problems that were run at two lengths or more, with the fastest kernel at each. */
export function lengthPanels(result: BenchResult): LengthPanel[] {
  const groups = new Map<string, (BenchLine & { shape: BenchShape })[]>();
  for (const line of result.lines) {
    const { family, shape, bytes, flops } = line;
    // A batch of mixed lengths has no place on an axis of lengths.
    if (shape === null || shape.kvTokens !== undefined) continue;
    if ((shape.qoLen === 1 ? bytes : flops) === 0) continue;
    const tokens = shape.qoLen === 1
      ? ""
      : shape.qoLen === shape.kvLen
      ? ", all tokens"
      : `, ${shape.qoLen} tokens`;
    const title = `${family}: ${shape.batch} ×, ${headsText(shape)}${tokens}`;
    groups.set(title, [...groups.get(title) ?? [], { ...line, shape }]);
  }
  return [...groups].flatMap(([title, lines]) => {
    if (new Set(lines.map(({ shape }) => shape.kvLen)).size < 2) return [];
    const unit = lines[0].shape.qoLen === 1 ? "GB/s" : "TFLOP/s";
    const best = new Map<string, LengthPoint>();
    for (const line of lines) {
      const speed = unit === "GB/s" ? gbPerSecond(line) : tflops(line);
      const point = {
        kvLen: line.shape.kvLen,
        speed,
        library: libraryText(line),
        dtype: shortDtype(line.dtype),
      };
      const key = JSON.stringify([point.kvLen, point.library, point.dtype]);
      if (speed > (best.get(key)?.speed ?? 0)) best.set(key, point);
    }
    return [{ title, unit, points: [...best.values()] }];
  });
}

/** The plot of a run. */
export function lengthPlot(result: BenchResult): Plot {
  const panels = lengthPanels(result);
  return {
    id: "length",
    title: "Speed over sequence length",
    caption: "The fastest kernel at each length, where a problem was run at several. With one " +
      "token a request the bytes of the cache count (GB/s), with many the operations (TFLOP/s).",
    spec: panels.length === 0 ? null : spec(panels),
    leftOut: panels.length === 0 ? "no problem was run at two lengths" : "",
  };
}

function spec(panels: readonly LengthPanel[]): Spec {
  const points = panels.flatMap((panel) => panel.points);
  const dtypes = [...new Set(points.map(({ dtype }) => dtype))];
  const libraries = seriesNames(points.map(({ library }) => library));
  const dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]];
  const dashScale = {
    domain: libraries,
    range: libraries.map((_, i) => dashes[i % dashes.length]),
  };
  const legend = (title: string, symbolSize: number) => ({
    title,
    legend: { ...TOP, symbolSize },
  });
  return withTheme({
    columns: Math.min(2, panels.length),
    // The frames are lined up, so the room for axes and titles is counted in.
    bounds: "flush",
    spacing: { row: 88, column: 84 },
    concat: panels.map(({ title, unit, points }) => ({
      title,
      width: 330,
      height: 210,
      data: { values: points },
      encoding: {
        x: {
          field: "kvLen",
          type: "quantitative",
          scale: { type: "log", base: 2, nice: false },
          title: "length (tokens)",
          axis: {
            values: [...new Set(points.map(({ kvLen }) => kvLen))].sort((a, b) => a - b),
            format: "d",
            labelOverlap: "greedy",
            labelFlush: false,
          },
        },
        y: { field: "speed", type: "quantitative", ...speedAxis(unit, points) },
        color: {
          field: "dtype",
          type: "nominal",
          scale: colorScale(dtypes),
          ...legend("dtype", 90),
        },
      },
      layer: [
        {
          mark: { type: "line", strokeWidth: 2 },
          encoding: {
            strokeDash: {
              field: "library",
              type: "nominal",
              scale: dashScale,
              ...legend("library", 400),
            },
          },
        },
        // Not the line's own points: with these the legend of the dashes has no strokes.
        { mark: { type: "point", filled: true, size: 45, opacity: 1 } },
      ],
    })),
  });
}

/** A peer far ahead would press all others onto the floor of an axis from 0. */
function speedAxis(unit: string, points: readonly LengthPoint[]): Spec {
  const speeds = points.map(({ speed }) => speed);
  const least = Math.min(...speeds);
  const most = Math.max(...speeds);
  if (most <= 30 * least) {
    return {
      scale: { zero: true },
      title: `speed (${unit})`,
      axis: { tickCount: 6, format: "~r" },
    };
  }
  const values = Array.from({ length: 13 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** (i - 6)));
  return {
    scale: { type: "log", domain: [least / 1.5, most * 1.5], nice: false },
    title: `speed (${unit}, logarithmic)`,
    axis: { values: values.flat(), format: "~r", labelOverlap: "greedy" },
  };
}
