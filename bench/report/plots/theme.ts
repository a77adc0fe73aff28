/**
 * What all plots share: colours, fonts and the way a plot says that it has nothing to show.
 *
 * @module
 */

/** A specification of Vega-Lite. */
export type Spec = Readonly<Record<string, unknown>>;

/** A plot that can be drawn, or why it is left out. */
export interface Plot {
  /** Part of the file's name. */
  readonly id: string;
  readonly title: string;
  /** How to read it, in a sentence or two. */
  readonly caption: string;
  /** Null where there is nothing to draw. */
  readonly spec: Spec | null;
  /** Why there is nothing to draw; empty otherwise. */
  readonly leftOut: string;
}

/** Colours that have a meaning of their own, light and dark. */
const INK = { light: "#1f2328", dark: "#e6edf3" };
const MUTED = { light: "#57606b", dark: "#9aa4ae" };
const GRID = { light: "#e3e7ec", dark: "#2b323b" };
const PANEL = { light: "#fefefe", dark: "#12171e" };
/** Series; each pair keeps its hue, so that a text which names a colour holds in both. */
const SERIES = [
  { light: "#0a66c8", dark: "#5aa9ff" },
  { light: "#c2480c", dark: "#ff9a5c" },
  { light: "#16803c", dark: "#57d068" },
  { light: "#7b3aec", dark: "#bd8fff" },
  { light: "#bd1a5e", dark: "#ff7fb5" },
  { light: "#7d6000", dark: "#e2b53f" },
];

/** The colours of text, lines and verdicts, as a specification names them. */
export const COLOR: Readonly<
  Record<"ink" | "muted" | "grid" | "panel" | "faster" | "slower" | "same", string>
> = {
  ink: INK.light,
  muted: MUTED.light,
  grid: GRID.light,
  panel: PANEL.light,
  faster: SERIES[2].light,
  slower: SERIES[1].light,
  same: MUTED.light,
};

/** A scale of colours in which what comes first, ours, is always blue. */
export function colorScale(names: readonly string[]): Spec {
  return { domain: names, range: names.map((_, i) => SERIES[i % SERIES.length].light) };
}

/**
 * Rules that repaint a light SVG for the dark. The pictures themselves hold plain colours, since
 * viewers without CSS would draw variables black.
 */
export const DARK_RULES: string = [
  INK,
  // The symbols of legends that are not about colours.
  { light: "black", dark: INK.dark },
  MUTED,
  GRID,
  PANEL,
  ...SERIES,
].map(({ light, dark }) =>
  `svg [fill="${light}"]{fill:${dark}}svg [stroke="${light}"]{stroke:${dark}}`
).join("");

/** Configuration of every plot. */
const CONFIG: Spec = {
  background: COLOR.panel,
  padding: 12,
  font: "Helvetica, Arial, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: COLOR.muted,
    titleColor: COLOR.ink,
    gridColor: COLOR.grid,
    domainColor: COLOR.muted,
    tickColor: COLOR.muted,
    labelFontSize: 12,
    titleFontSize: 12.5,
    titleFontWeight: 600,
    titlePadding: 10,
    // A name that is cut off names nothing.
    labelLimit: 0,
  },
  legend: {
    labelColor: COLOR.ink,
    titleColor: COLOR.ink,
    labelFontSize: 12,
    titleFontSize: 12.5,
    titleFontWeight: 600,
    symbolSize: 90,
    labelLimit: 320,
    rowPadding: 4,
    layout: { top: { margin: 32 } },
  },
  title: {
    color: COLOR.ink,
    fontSize: 13,
    fontWeight: 600,
    anchor: "start",
    frame: "group",
    offset: 10,
  },
};

/** A legend above the plot, where the plot needs all of the width. */
export const TOP: Spec = { orient: "top", direction: "horizontal", columnPadding: 18 };

/** A specification with what all share. */
export function withTheme(spec: Spec): Spec {
  return { $schema: "https://vega.github.io/schema/vega-lite/v6.json", config: CONFIG, ...spec };
}

/** Names in the order in which they are met, ours first. */
export function seriesNames(names: Iterable<string>): string[] {
  const distinct = [...new Set(names)];
  const ours = (name: string) => name === "kvasir" ? 0 : 1;
  return distinct.sort((a, b) => ours(a) - ours(b));
}
