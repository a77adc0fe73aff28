/**
 * What an FP8 cache gains over one of 16 bits: bars by shape.
 *
 * @module
 */

import type { BenchLine, BenchResult } from "../../results.ts";
import { digits, duration, libraryText, shapeText, shortDtype } from "../format.ts";
import { COLOR, colorScale, type Plot, type Spec, TOP, withTheme } from "./theme.ts";

/** One bar. */
export interface Fp8Bar {
  /** What the bars of a group share. */
  readonly group: string;
  readonly dtype: string;
  /** How many times as fast as float16. */
  readonly ratio: number;
  readonly text: string;
}

const ORDER = ["f16", "e4m3", "e5m2"];

/** Bars of every problem that was timed with float16 and with an FP8 dtype by one library. */
export function fp8Bars(result: BenchResult): Fp8Bar[] {
  const groups = new Map<string, Map<string, BenchLine>>();
  for (const line of result.lines) {
    const dtype = shortDtype(line.dtype);
    if (line.shape === null || !ORDER.includes(dtype)) continue;
    const library = libraryText(line);
    const whose = library === "kvasir" ? "" : `, ${library}`;
    const group = `${line.family}${whose}: ${shapeText(line.shape)}`;
    const lines = groups.get(group) ?? new Map<string, BenchLine>();
    groups.set(group, lines);
    // Of several kernels, the one that a caller should get.
    if (!(lines.get(dtype)! && lines.get(dtype)!.time.median <= line.time.median)) {
      lines.set(dtype, line);
    }
  }
  return [...groups].flatMap(([group, lines]) => {
    const half = lines.get("f16");
    if (half === undefined || lines.size < 2) return [];
    return ORDER.filter((dtype) => lines.has(dtype)).map((dtype) => {
      const { median } = lines.get(dtype)!.time;
      const ratio = half.time.median / median;
      return { group, dtype, ratio, text: `${digits(ratio)} × (${duration(median)})` };
    });
  });
}

/** The plot of a run. */
export function fp8Plot(result: BenchResult): Plot {
  const bars = fp8Bars(result);
  return {
    id: "fp8",
    title: "f16 against FP8",
    caption: "How many times as fast as with a cache of float16, with the time. Half the bytes " +
      "could at best make 2.",
    spec: bars.length === 0 ? null : spec(bars),
    leftOut: bars.length === 0 ? "no shape was timed with both float16 and FP8" : "",
  };
}

function spec(bars: readonly Fp8Bar[]): Spec {
  const dtypes = ORDER.filter((name) => bars.some(({ dtype }) => dtype === name));
  // Names stand right of the bars.
  const end = Math.max(2, ...bars.map(({ ratio }) => ratio)) * 1.3;
  const x = {
    field: "ratio",
    type: "quantitative",
    scale: { domain: [0, end], nice: false },
    title: "speed relative to float16 (×)",
    axis: { tickCount: 6, format: "~g" },
  };
  const y = {
    field: "group",
    type: "nominal",
    sort: null,
    title: null,
    scale: { paddingInner: 0.25 },
    axis: { labelColor: COLOR.ink, ticks: false, domain: false, labelPadding: 8 },
  };
  const yOffset = { field: "dtype", type: "nominal", scale: { domain: dtypes }, sort: null };
  return withTheme({
    width: 520,
    height: { step: 17 },
    data: { values: bars },
    layer: [
      {
        mark: { type: "bar", cornerRadiusEnd: 2 },
        encoding: {
          x,
          y,
          yOffset,
          color: {
            field: "dtype",
            type: "nominal",
            scale: colorScale(dtypes),
            title: "dtype",
            legend: TOP,
          },
        },
      },
      {
        mark: { type: "text", align: "left", dx: 5, fontSize: 11, color: COLOR.ink },
        encoding: { x, y, yOffset, text: { field: "text" } },
      },
    ],
  });
}
