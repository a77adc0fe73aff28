/**
 * Draws plots as SVG with Vega-Lite and Vega, which need no DOM for it.
 *
 * @module
 */

import { DARK_RULES, type Plot, type Spec } from "./plots/theme.ts";

// Not in deno.json, and not to be seen by static analysis: 70 packages that only this needs, and
// that no demo and no test should fetch.
const VEGA_LITE: string = "npm:vega-lite@6.5.0";
const VEGA: string = "npm:vega@6.4.0";

/** Pictures by the id of their plot. */
export type Pictures = ReadonlyMap<string, string>;

interface VegaLite {
  compile(spec: Spec): { readonly spec: unknown };
}

interface Vega {
  readonly textMetrics: {
    width: (item: { readonly fontSize?: number; readonly text?: unknown }, text: unknown) => number;
  };
  parse(spec: unknown): unknown;
  View: new (
    runtime: unknown,
    options: { renderer: "none" },
  ) => { toSVG(): Promise<string>; finalize(): void };
}

/** Says that there is no Vega here: no network, and nothing in the cache. */
export class NoVegaError extends Error {}

async function load(): Promise<[VegaLite, Vega]> {
  try {
    return [await import(VEGA_LITE), await import(VEGA)];
  } catch (error) {
    throw new NoVegaError(String((error as Error).message).split("\n")[0]);
  }
}

/** Draws every plot that has something to show. */
export async function drawPlots(plots: readonly Plot[]): Promise<Pictures> {
  const pictures = new Map<string, string>();
  if (plots.every(({ spec }) => spec === null)) return pictures;
  const [vegaLite, vega] = await load();
  // Without a DOM Vega estimates 0.8 of the size per letter, which fits capitals only.
  vega.textMetrics.width = ({ fontSize, text: own }, text) =>
    0.6 * (fontSize ?? 11) * String(text ?? own ?? "").length;
  for (const { id, spec } of plots) {
    if (spec === null) continue;
    const view = new vega.View(vega.parse(vegaLite.compile(spec).spec), { renderer: "none" });
    pictures.set(id, await view.toSVG());
    view.finalize();
  }
  return pictures;
}

/** A picture as a file of its own, which follows the reader's light or dark by itself. */
export function standalone(svg: string): string {
  const style = `<style>@media (prefers-color-scheme:dark){${DARK_RULES}}</style>`;
  return svg.replace(/^<svg[^>]*>/, (opening) => opening + style) + "\n";
}

/** A picture as part of a page: without namespaces, and with names that no other picture has. */
export function inline(svg: string, id: string): string {
  return svg.replace(/ xmlns(:\w+)?="[^"]*"/g, "")
    .replace(/\bid="(clip|gradient)/g, `id="${id}-$1`)
    .replace(/url\(#(clip|gradient)/g, `url(#${id}-$1`);
}
