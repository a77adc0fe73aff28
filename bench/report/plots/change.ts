/**
 * Before and after: how many times as fast each line became.
 *
 * @module
 */

import { type Change, type Comparison, REPEATABILITY } from "../compare.ts";
import { digits, duration, percent } from "../format.ts";
import { COLOR, type Plot, type Spec, TOP, withTheme } from "./theme.ts";

const TICKS = [0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100];

/** The plot of two runs. */
export function changePlot({ changes }: Comparison): Plot {
  return {
    id: "change",
    title: "Before and after",
    caption: "How many times as fast each line is in the second file, and its times. Changes " +
      `within ${percent(REPEATABILITY)}, as far as two runs of one machine differ, are grey.`,
    spec: changes.length === 0 ? null : spec(changes),
    leftOut: changes.length === 0 ? "the two files have no measurement in common" : "",
  };
}

function spec(changes: readonly Change[]): Spec {
  const verdicts = { faster: "faster", same: `within ${percent(REPEATABILITY)}`, slower: "slower" };
  const values = changes.map(({ label, ratio, verdict, before, after }) => ({
    label,
    ratio,
    verdict: verdicts[verdict],
    text: `${digits(ratio)} × (${duration(before.time.median)} → ${duration(after.time.median)})`,
  }));
  const ratios = values.map(({ ratio }) => ratio);
  // The scale is logarithmic, so that twice and half are as long; the text stands right of 1.
  const domain = [Math.min(0.8, ...ratios) / 1.1, Math.max(1.25, ...ratios) * 1.2];
  domain[1] *= (domain[1] / domain[0]) ** 0.45;
  const x = {
    field: "ratio",
    type: "quantitative",
    scale: { type: "log", domain, nice: false },
    title: "speed after relative to before (×, logarithmic)",
    axis: {
      values: TICKS.filter((tick) => tick >= domain[0] && tick <= domain[1]),
      format: "~g",
      labelOverlap: "greedy",
    },
  };
  const y = {
    field: "label",
    type: "nominal",
    sort: null,
    title: null,
    axis: { labelColor: COLOR.ink, ticks: false, domain: false, labelPadding: 8 },
  };
  return withTheme({
    width: 460,
    height: { step: 22 },
    data: { values },
    layer: [
      {
        mark: { type: "bar" },
        encoding: {
          x,
          x2: { datum: 1 },
          y,
          color: {
            field: "verdict",
            type: "nominal",
            scale: {
              domain: Object.values(verdicts),
              range: [COLOR.faster, COLOR.same, COLOR.slower],
            },
            title: null,
            legend: TOP,
          },
        },
      },
      { mark: { type: "rule", color: COLOR.ink }, encoding: { x: { datum: 1 } } },
      {
        // Beside the bar, or right of 1 where the bar goes to the left.
        transform: [{ calculate: "max(datum.ratio, 1)", as: "end" }],
        mark: { type: "text", align: "left", dx: 6, fontSize: 11, color: COLOR.ink },
        encoding: { x: { ...x, field: "end" }, y, text: { field: "text" } },
      },
    ],
  });
}
