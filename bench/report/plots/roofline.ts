/**
 * The roofline: what the machine allows at each ratio of operations to bytes, and what is reached.
 *
 * @module
 */

import type { BenchResult, MeasuredLimits } from "../../results.ts";
import { digits, libraryText, shapeText, shortDtype, tflops } from "../format.ts";
import { COLOR, colorScale, type Plot, seriesNames, type Spec, withTheme } from "./theme.ts";

/** One kernel in the plot. */
export interface RooflinePoint {
  /** Operations per byte that has to move. */
  readonly intensity: number;
  readonly tflops: number;
  readonly library: string;
  readonly family: string;
  readonly recorded: boolean;
  readonly text: string;
}

const WIDTH = 680;
const HEIGHT = 400;
/** A line at every power; the ticks between would be a thicket. */
const POWERS = Array.from({ length: 13 }, (_, i) => 10 ** (i - 6));

/** Kernels of the GPU that both move and compute; the roofs are not those of the processor. */
export function rooflinePoints(result: BenchResult): RooflinePoint[] {
  return result.lines
    .filter(({ family, bytes, flops }) => bytes > 0 && flops > 0 && !/^cpu\b/i.test(family))
    .map((line) => ({
      intensity: line.flops / line.bytes,
      tflops: tflops(line),
      library: libraryText(line),
      family: line.family,
      recorded: line.recorded !== undefined,
      text: `${line.kernel} ${shortDtype(line.dtype)} ${
        line.shape ? shapeText(line.shape, line.family) : ""
      }`,
    }));
}

/** The plot of a run. */
export function rooflinePlot(result: BenchResult): Plot {
  const points = rooflinePoints(result);
  const { limits } = result;
  const leftOut = limits === null
    ? "the run measured no limits of a GPU"
    : points.length === 0
    ? "no kernel of the GPU was timed"
    : "";
  return {
    id: "roofline",
    title: "Roofline",
    caption: "Each point is one kernel on one shape. The slope is the read bandwidth measured in " +
      "this run, the flat lines are the rates of fused multiply-adds, which WebGPU reaches without " +
      "tensor cores; libraries that use those can lie above. Points above the slope work from the " +
      "cache. Hollow points are recorded figures.",
    spec: limits === null || points.length === 0 ? null : spec(points, limits),
    leftOut,
  };
}

function spec(points: readonly RooflinePoint[], limits: MeasuredLimits): Spec {
  const slope = limits.readGbPerSecond / 1e3;
  const flat = [
    { tflops: limits.f32Tflops, name: "f32 FMA" },
    ...limits.f16Tflops === null ? [] : [{ tflops: limits.f16Tflops, name: "f16 FMA" }],
  ].sort((a, b) => a.tflops - b.tflops);
  const top = flat[flat.length - 1].tflops;
  const intensities = [...points.map(({ intensity }) => intensity), top / slope];
  // Room at the right for the names of the roofs.
  const x = [Math.min(...intensities) / 2, Math.max(...intensities) * 8];
  const rates = [...points.map((point) => point.tflops), top, slope * x[0]];
  const y = [Math.min(...rates) / 1.6, Math.max(...rates) * 2];
  const xScale = { type: "log", domain: x, nice: false };
  const yScale = { type: "log", domain: y, nice: false };
  const xOf = { field: "x", type: "quantitative", scale: xScale };
  const yOf = { field: "y", type: "quantitative", scale: yScale };
  // On logarithmic axes the slope has one angle, so its name can lie along it.
  const angle = -Math.atan(
    (HEIGHT / Math.log10(y[1] / y[0])) / (WIDTH / Math.log10(x[1] / x[0])),
  ) * 180 / Math.PI;
  const middle = Math.sqrt(x[0] * (top / slope));
  const roof = (values: unknown[], dash: number[]) => ({
    data: { values },
    mark: { type: "line", color: COLOR.ink, strokeWidth: 1.6, strokeDash: dash },
    encoding: { x: xOf, y: yOf },
  });
  const name = (at: { x: number; y: number; text: string }, mark: Spec) => ({
    data: { values: [at] },
    mark: { type: "text", color: COLOR.ink, fontSize: 12, ...mark },
    encoding: { x: xOf, y: yOf, text: { field: "text" } },
  });
  const libraries = colorScale(seriesNames(points.map(({ library }) => library)));
  const families = seriesNames(points.map(({ family }) => family));
  const cloud = (recorded: boolean) => ({
    data: { values: points.filter((point) => point.recorded === recorded) },
    mark: { type: "point", filled: !recorded, size: 75, opacity: 0.85, strokeWidth: 1.8 },
    encoding: {
      x: {
        field: "intensity",
        type: "quantitative",
        scale: xScale,
        title: "operations per byte (FLOP/B)",
        axis: { values: POWERS, format: "~s" },
      },
      y: {
        field: "tflops",
        type: "quantitative",
        scale: yScale,
        title: "speed (TFLOP/s)",
        axis: { values: POWERS, format: "~r" },
      },
      color: { field: "library", type: "nominal", scale: libraries, title: "library" },
      shape: { field: "family", type: "nominal", scale: { domain: families }, title: "kernel" },
      description: { field: "text" },
    },
  });
  return withTheme({
    width: WIDTH,
    height: HEIGHT,
    layer: [
      roof([{ x: x[0], y: slope * x[0] }, { x: top / slope, y: top }], []),
      name(
        { x: middle, y: slope * middle, text: `read ${digits(slope)} TB/s` },
        { angle, dy: -13, align: "center" },
      ),
      ...flat.flatMap(({ tflops, name: rate }, i) => [
        roof([{ x: tflops / slope, y: tflops }, { x: x[1], y: tflops }], i === 0 ? [] : [6, 4]),
        // The two rates may be close: the lower one's name goes below its line.
        name(
          { x: x[1], y: tflops, text: `${rate} ${digits(tflops)} TFLOP/s` },
          { align: "right", dx: -4, dy: i < flat.length - 1 ? 12 : -9 },
        ),
      ]),
      ...[false, true].filter((kind) => points.some(({ recorded }) => recorded === kind))
        .map(cloud),
    ],
  });
}
