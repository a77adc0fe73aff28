/**
 * What a result says of the machine that it was measured on.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import process from "node:process";
import type { GpuBench } from "./gpu/main.ts";
import { type BenchLine, type BenchResult, RESULT_VERSION } from "./results.ts";

/** The result of a run; `machine` is what a person calls the machine, if anything. */
export function resultOf(
  gpu: GpuBench | null,
  lines: readonly BenchLine[],
  machine: string,
): BenchResult {
  const report = gpu?.backend.report();
  const deno = (process.versions as Record<string, string | undefined>).deno;
  return {
    version: RESULT_VERSION,
    date: new Date().toISOString(),
    commit: commit(),
    machine: machine || `${cpus().length} x ${cpus()[0]?.model ?? "an unknown processor"}`,
    runtime: (deno ? `Deno ${deno}` : `Node ${process.versions.node}`) +
      (report?.shaderCompiler === "tint" ? " with Dawn" : ""),
    versions: Object.fromEntries(
      Object.entries(process.versions).filter((entry): entry is [string, string] => !!entry[1]),
    ),
    adapter: report?.adapter ?? null,
    shaderCompiler: report?.shaderCompiler ?? null,
    limits: gpu?.limits ?? null,
    lines,
  };
}

/** The commit that runs, or "" where git cannot say; a bundle knows its own. */
function commit(): string {
  const bundled = (globalThis as { KVASIR_COMMIT?: string }).KVASIR_COMMIT;
  if (bundled !== undefined) return bundled;
  try {
    const git = (...args: string[]) =>
      execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    return git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain") ? "+" : "");
  } catch {
    return "";
  }
}
