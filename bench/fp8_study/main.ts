/**
 * `deno task fp8:study [--check | --quick]`: what FP8 caches cost in accuracy, on the WASM backend
 * against float64. Writes the tables of docs/fp8.md and the plots beside it; a minute or two.
 *
 * `--check` writes nothing and fails where the document's tables are not those of this run; `--quick`
 * prints the tables of a small study, in a second.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { BenchError } from "../bench_error.ts";
import { drawPlots, NoVegaError, standalone } from "../report/draw.ts";
import { writeAll, writeWhole } from "../write.ts";
import { fillBlocks } from "./document.ts";
import { plotsOf } from "./plots.ts";
import { FULL, QUICK, runStudy, type StudyResult } from "./study.ts";
import { tablesOf } from "./tables.ts";

const DOCUMENT = fileURLToPath(new URL("../../docs/fp8.md", import.meta.url));
const PLOTS = fileURLToPath(new URL("../../docs/plots", import.meta.url));

/** Runs the command; returns the exit code. */
async function command(args: readonly string[]): Promise<number> {
  const [mode, ...more] = args;
  if (more.length > 0 || ![undefined, "--check", "--quick"].includes(mode)) {
    throw new BenchError("usage: deno task fp8:study [--check | --quick]");
  }
  if (mode === "--quick") {
    for (const [name, table] of tablesOf(await runStudy(QUICK))) {
      console.log(`${name}\n\n${table}\n`);
    }
    return 0;
  }
  const document = await readFile(DOCUMENT, "utf8");
  const result = await runStudy(FULL, (line) => console.error(line));
  const filled = fillBlocks(document, tablesOf(result));
  if (mode === "--check") {
    console.log(filled === document ? "docs/fp8.md is right" : "docs/fp8.md is out of date");
    return filled === document ? 0 : 1;
  }
  await writeWhole(DOCUMENT, filled);
  await writePlots(result);
  return 0;
}

async function writePlots(result: StudyResult): Promise<void> {
  try {
    const pictures = await drawPlots(plotsOf(result));
    const files = [...pictures].map(([id, svg]) => [`fp8-${id}.svg`, standalone(svg)] as const);
    await writeAll(PLOTS, new Map(files));
  } catch (error) {
    if (!(error instanceof NoVegaError)) throw error;
    console.error(`the plots stay as they are: Vega cannot be loaded (${error.message})`);
  }
}

if (import.meta.main) {
  try {
    Deno.exit(await command(Deno.args));
  } catch (error) {
    if (!(error instanceof BenchError)) throw error;
    console.error(`fp8:study: ${error.message}`);
    Deno.exit(2);
  }
}
