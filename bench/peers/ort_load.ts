/**
 * Finds onnxruntime-web: in the folder that ORT_DIR names, where there is no network, else in npm.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { firstLine } from "../bench_error.ts";

// Not in deno.json, and not a literal for bundlers: 140 MB that only these comparisons need.
const PACKAGE: string = "onnxruntime-web@1.30.0/webgpu";

// deno-lint-ignore no-explicit-any
export type OnnxRuntime = any;

let loading: Promise<OnnxRuntime | null> | undefined;

/** The runtime; null where it is not to be had, which one line says once. */
export function loadOnnxRuntime(): Promise<OnnxRuntime | null> {
  return loading ??= load();
}

async function load(): Promise<OnnxRuntime | null> {
  const folder = process.env.ORT_DIR && resolve(process.env.ORT_DIR);
  try {
    const isDeno = "deno" in process.versions;
    const ort = folder
      ? await import(pathToFileURL(join(folder, "ort.webgpu.bundle.min.mjs")).href)
      : await import(isDeno ? `npm:${PACKAGE}` : PACKAGE.replace(/@[^/]*/, ""));
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = 1;
    if (folder) {
      const bytes = readFileSync(join(folder, "ort.wasm"));
      ort.env.wasm.wasmBinary = bytes.buffer.slice(
        bytes.byteOffset,
        bytes.byteOffset + bytes.byteLength,
      );
    }
    return ort;
  } catch (error) {
    console.log(`  onnxruntime-web is left out: ${firstLine(error)}`);
    return null;
  }
}
