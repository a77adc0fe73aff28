/**
 * The benchmarks on the command line:
 *
 *     deno task bench [gpu] [codec] [cpu] [--quick] [--filter TEXT] [--json FILE] [--machine NAME]
 *
 * Without a name, all of them. `--filter` keeps GPU cases whose line holds TEXT.
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { benchCodec } from "./codec.ts";
import { benchCpuAttention } from "./cpu_attention.ts";
import { benchGpu, type GpuBench } from "./gpu/main.ts";
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
      options: {
        quick: { type: "boolean", default: false },
        filter: { type: "string", default: "" },
        json: { type: "string" },
        machine: { type: "string", default: "" },
      },
    });
    const unknown = positionals.find((name) => !NAMES.includes(name));
    if (unknown !== undefined) fail(`${unknown} is unknown; there are: ${NAMES.join(", ")}`);
    return { ...values, names: positionals.length > 0 ? positionals : NAMES };
  } catch (error) {
    return fail((error as Error).message.split("\n")[0]);
  }
}

const { names, quick, filter, json, machine } = readArguments();
let gpu: GpuBench | null = null;
if (names.includes("gpu")) gpu = await benchGpu({ quick, filter });
if (names.includes("codec")) await benchCodec();
if (names.includes("cpu")) await benchCpuAttention();
if (json !== undefined) {
  const text = JSON.stringify(resultOf(gpu, machine), null, 1);
  try {
    writeFileSync(json, `${text}\n`);
  } catch (error) {
    fail(`${json} cannot be written: ${(error as Error).message}`);
  }
  console.log(`written: ${json}`);
}
gpu?.backend.destroy();
