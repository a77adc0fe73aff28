/**
 * `deno task bench:report a.json [b.json] [--out folder]`: a page and plots of what the bench
 * measured; of two files, also what changed from the first to the second.
 *
 * The files are named after the last result, and stand beside it unless `--out` says otherwise.
 * What a person can put right is one line on stderr and exit code 2, with nothing written.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { BenchError } from "../bench_error.ts";
import { writeAll } from "../write.ts";
import { compare } from "./compare.ts";
import { drawPlots, NoVegaError, type Pictures, standalone } from "./draw.ts";
import { type NamedResult, page } from "./page.ts";
import { plotsOf } from "./plots.ts";
import type { Plot } from "./plots/theme.ts";
import { readResult } from "./read.ts";

const USAGE = "deno task bench:report a.json [b.json] [--out folder]";

/** Makes a report and says line by line what it wrote; returns the exit code. */
export async function report(
  args: readonly string[],
  { draw = drawPlots, log = console.log, complain = console.error }: {
    draw?: (plots: readonly Plot[]) => Promise<Pictures>;
    log?: (line: string) => void;
    complain?: (line: string) => void;
  } = {},
): Promise<number> {
  try {
    const { paths, out } = options(args);
    // All is read and drawn before anything is written.
    const runs: NamedResult[] = [];
    for (const path of paths) runs.push({ name: basename(path), result: await readResult(path) });
    const after = runs[runs.length - 1];
    const before = runs.length === 2 ? runs[0] : null;
    const comparison = before && compare(before.result, after.result);
    const plots = plotsOf(after.result, comparison);
    let undrawn = "";
    const pictures = await draw(plots).catch((error): Pictures => {
      if (!(error instanceof NoVegaError)) throw error;
      undrawn = `Vega, which draws it, cannot be loaded (${error.message})`;
      return new Map();
    });
    const base = after.name.replace(/\.json$/i, "");
    const files = new Map<string, string | null>();
    files.set(
      `${base}.html`,
      page({ after, before, comparison, plots, pictures, undrawn }),
    );
    for (const { id, title, leftOut } of plots) {
      const svg = pictures.get(id);
      // A plot of an earlier report would pass for one of this run.
      files.set(`${base}-${id}.svg`, svg === undefined ? null : standalone(svg));
      if (svg === undefined) log(`${title} is left out: ${leftOut || undrawn}`);
    }
    const folder = out ?? dirname(paths[paths.length - 1]);
    await writeAll(folder, files);
    for (const [name, text] of files) if (text !== null) log(join(folder, name));
    return 0;
  } catch (error) {
    if (!(error instanceof BenchError)) throw error;
    complain(`bench:report: ${error.message}`);
    return 2;
  }
}

function options(args: readonly string[]): { paths: string[]; out: string | undefined } {
  // Not strict, since parseArgs' own messages are several sentences long.
  const { positionals, tokens, values } = parseArgs({
    args: [...args],
    options: { out: { type: "string" } },
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind === "option" && token.name !== "out") {
      throw new BenchError(`${token.rawName} is unknown; usage: ${USAGE}`);
    }
  }
  const { out } = values;
  if (out !== undefined && (typeof out !== "string" || out === "")) {
    throw new BenchError(`--out needs a folder; usage: ${USAGE}`);
  }
  if (positionals.length !== 1 && positionals.length !== 2) {
    const got = positionals.length === 0 ? "no file" : `${positionals.length} files`;
    throw new BenchError(`one or two result files are needed, and ${got} given; usage: ${USAGE}`);
  }
  return { paths: positionals, out };
}

if (import.meta.main) Deno.exit(await report(Deno.args));
