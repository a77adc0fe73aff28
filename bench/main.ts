/**
 * The benchmarks on the command line:
 *
 *     deno task bench [gpu] [codec] [cpu] [--quick] [--filter TEXT] [--json FILE] [--machine NAME]
 *     deno task bench gpu --sweep maxRows=2,4,8 --sweep workgroup=64,128 [--filter TEXT] [--json FILE]
 *
 * Without a name, all of them. `--filter` keeps GPU cases whose line holds TEXT; `--no-peers` leaves
 * onnxruntime-web out. `--sweep` tries all combinations of tuning constants and ranks them.
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { benchCodec } from "./codec.ts";
import { benchCpuAttention } from "./cpu_attention.ts";
import { benchGpu, type GpuBench } from "./gpu/main.ts";
import { parseSweep } from "./gpu/sweep.ts";
import { resultOf } from "./machine.ts";

const NAMES = ["gpu", "codec", "cpu"];

function fail(message: string): never {
  console.error(`bench: ${message}`);
  process.exit(2);
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      allowNegative: true,
      options: {
        quick: { type: "boolean", default: false },
        filter: { type: "string", default: "" },
        json: { type: "string" },
        machine: { type: "string", default: "" },
        peers: { type: "boolean", default: true },
        sweep: { type: "string", multiple: true },
      },
    });
    const unknown = positionals.find((name) => !NAMES.includes(name));
    if (unknown !== undefined) fail(`${unknown} is unknown; there are: ${NAMES.join(", ")}`);
    const names = positionals.length > 0 ? positionals : NAMES;
    return { ...values, names, sweep: values.sweep ? parseSweep(values.sweep) : null };
  } catch (error) {
    return fail((error as Error).message.split("\n")[0]);
  }
}

const { names, json, machine, ...options } = readArguments();
let gpu: GpuBench | null = null;
if (names.includes("gpu")) gpu = await benchGpu(options);
if (names.includes("codec")) await benchCodec();
if (names.includes("cpu")) await benchCpuAttention();
if (json !== undefined) {
  const result = resultOf(gpu, machine);
  const text = JSON.stringify(options.sweep ? { ...result, sweep: gpu?.sweep } : result, null, 1);
  try {
    writeFileSync(json, `${text}\n`);
  } catch (error) {
    fail(`${json} cannot be written: ${(error as Error).message}`);
  }
  console.log(`written: ${json}`);
}
gpu?.backend.destroy();
