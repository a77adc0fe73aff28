/**
 * The bench as a command: runs the parts that are asked for, and writes what they measured.
 *
 * What a person can put right is one line on stderr and exit code 2, with nothing written.
 *
 * @module
 */

import { type BenchArguments, readArguments } from "./arguments.ts";
import { BenchError } from "./bench_error.ts";
import { benchCodec } from "./codec.ts";
import { benchCpuAttention } from "./cpu_attention.ts";
import { benchGpu, type GpuBench } from "./gpu/main.ts";
import { chromeTrace } from "./gpu/profile.ts";
import { resultOf } from "./machine.ts";
import type { BenchLine } from "./results.ts";
import { checkWritable, writeWhole } from "./write.ts";

/** Runs the bench; returns the exit code. */
export async function bench(
  args: readonly string[],
  { complain = console.error }: { complain?: (line: string) => void } = {},
): Promise<number> {
  let gpu: GpuBench | null = null;
  try {
    const wanted = readArguments(args);
    for (const path of [wanted.json, wanted.profile]) if (path !== null) checkWritable(path);
    const { parts, profile } = wanted;
    const lines: BenchLine[] = [];
    if (parts.includes("gpu")) {
      gpu = await benchGpu({ ...wanted, profile: profile !== null });
      lines.push(...gpu?.lines ?? []);
    }
    if (parts.includes("codec")) lines.push(...await benchCodec(wanted));
    if (parts.includes("cpu")) lines.push(...await benchCpuAttention(wanted));
    checkMeasured(gpu, lines);
    for (const path of await write(wanted, gpu, lines)) console.log(`written: ${path}`);
    return 0;
  } catch (error) {
    if (!(error instanceof BenchError)) throw error;
    complain(`bench: ${error.message}`);
    return 2;
  } finally {
    gpu?.backend.destroy();
  }
}

/** A run that measured nothing has failed, whatever it was asked for. */
function checkMeasured(gpu: GpuBench | null, lines: readonly BenchLine[]): void {
  const swept = gpu?.sweep.some(({ line }) => line !== undefined);
  if (lines.some(({ library }) => library === "kvasir") || swept || gpu?.profile.length) return;
  throw new BenchError("nothing could be measured here; the lines above say why");
}

async function write(
  { json, profile, machine }: BenchArguments,
  gpu: GpuBench | null,
  lines: readonly BenchLine[],
): Promise<string[]> {
  const written: string[] = [];
  if (json !== null) {
    const result = resultOf(gpu, lines, machine);
    const text = JSON.stringify(
      gpu?.sweep.length ? { ...result, sweep: gpu.sweep } : result,
      null,
      1,
    );
    await writeWhole(json, `${text}\n`);
    written.push(json);
  }
  if (profile !== null && gpu) {
    await writeWhole(profile, chromeTrace(gpu.profile, gpu.backend.report().description));
    written.push(profile);
  }
  return written;
}
