/**
 * PyTorch's attention beside us, where python3 can import torch and finds a CUDA device: its script
 * runs in a process of its own, and its lines are read.
 *
 * @module
 */

import { spawn } from "node:child_process";
import process from "node:process";
import { decodeBytes, decodeFlops } from "../gpu/decode_cases.ts";
import { prefillBytes, prefillFlops } from "../gpu/prefill_cases.ts";
import { type BenchLine, type BenchShape, samples } from "../results.ts";
// As text, so that the bundle holds it.
import script from "./torch_sdpa_bench.py" with { type: "text" };

const LIBRARIES: Readonly<Record<string, string>> = {
  flash: "PyTorch FlashAttention-2",
  cudnn: "PyTorch cuDNN",
};
/** `decode cudnn (64, 32, 8, 128, 4096) 258.1us 4160 GB/s`: batch, heads, KV heads, dim, keys. */
const LINE = /^(decode|prefill) (\w+) \((\d+), (\d+), (\d+), (\d+), (\d+)\) ([\d.]+)us /;
/** How long the script may take: no figure of PyTorch's is worth a bench that hangs. */
const PATIENCE_MILLISECONDS = 180_000;

/** Runs the script; no lines, after one that says why, where it cannot run. */
export async function benchTorch(
  python: string = process.env.KVASIR_PYTHON ?? "python3",
): Promise<BenchLine[]> {
  const { output, failure } = await runScript(python);
  const { lines, leftOut } = parseTorch(output);
  for (const why of leftOut) console.log(`  ${why}`);
  if (failure !== null) console.log(`  PyTorch is left out: ${failure}`);
  return lines;
}

/** What the script printed, as lines of a result, and what it could not run. */
export function parseTorch(output: string): { lines: BenchLine[]; leftOut: string[] } {
  const lines: BenchLine[] = [];
  const leftOut: string[] = [];
  const version = /^torch (\S+)/m.exec(output)?.[1] ?? "";
  for (const text of output.split("\n")) {
    if (text.includes(" ERR ")) leftOut.push(`PyTorch, left out: ${text.trim()}`);
    const match = LINE.exec(text);
    if (!match) continue;
    const [, family, backend, ...numbers] = match;
    const [batch, numQoHeads, numKvHeads, headDim, kvLen, microseconds] = numbers.map(Number);
    const library = LIBRARIES[backend];
    if (library === undefined || !(microseconds > 0)) continue;
    const qoLen = family === "prefill" ? kvLen : 1;
    const shape: BenchShape = { batch, qoLen, kvLen, numQoHeads, numKvHeads, headDim };
    const problem = { shape, dtype: "float16" as const };
    lines.push({
      family,
      library,
      shape,
      dtype: "float16",
      kernel: `scaled_dot_product_attention, torch ${version}`.trim(),
      time: samples([microseconds]),
      bytes: family === "prefill" ? prefillBytes(shape) : decodeBytes(problem),
      flops: family === "prefill" ? prefillFlops(shape) : decodeFlops(problem),
    });
  }
  return { lines, leftOut };
}

/** The script's output, and in one line why it failed, if it did. */
function runScript(python: string): Promise<{ output: string; failure: string | null }> {
  return new Promise((resolve) => {
    let output = "";
    let complaints = "";
    const child = spawn(python, ["-"], { timeout: PATIENCE_MILLISECONDS });
    child.stdout.on("data", (chunk) => output += chunk);
    child.stderr.on("data", (chunk) => complaints += chunk);
    // A python that ends early reads no script.
    child.stdin.on("error", () => {});
    child.on("error", (error) => resolve({ output, failure: error.message }));
    child.on("close", (code) => {
      const lastWords = complaints.trim().split("\n").pop() || `${python} ended with code ${code}`;
      resolve({ output, failure: code === 0 ? null : lastWords });
    });
    child.stdin.end(script);
  });
}
