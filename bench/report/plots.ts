/**
 * The plots of a report, in the order in which it shows them. Pure: what they hold can be looked at
 * without the library that draws them.
 *
 * @module
 */

import type { BenchResult } from "../results.ts";
import type { Comparison } from "./compare.ts";
import { changePlot } from "./plots/change.ts";
import { fp8Plot } from "./plots/fp8.ts";
import { lengthPlot } from "./plots/length.ts";
import { rooflinePlot } from "./plots/roofline.ts";
import type { Plot } from "./plots/theme.ts";

/** Plots of a run, and of what changed since an earlier one. */
export function plotsOf(result: BenchResult, comparison: Comparison | null): Plot[] {
  return [
    ...comparison === null ? [] : [changePlot(comparison)],
    rooflinePlot(result),
    lengthPlot(result),
    fp8Plot(result),
  ];
}
