/**
 * The GPU part of the bench: limits, then every decode case, with its share of the limit.
 *
 * @module
 */

import { openWebGpuBackend, type WebGpuBackend } from "../../src/webgpu/backend.ts";
import { requestDevice } from "../../src/webgpu/request_device.ts";
import { flashInferLines } from "../peers/flashinfer.ts";
import type { BenchLine, MeasuredLimits } from "../results.ts";
import { benchDecode, DECODE_CASES, type DecodeCase, SMALL_DECODE_CASES } from "./decode.ts";
import { measureLimits } from "./limits.ts";
import { GpuTimer, type TimingBudget } from "./timing.ts";

const FULL: TimingBudget = { passes: 9, passMilliseconds: 10, warmMilliseconds: 150 };
const QUICK: TimingBudget = { passes: 5, passMilliseconds: 4, warmMilliseconds: 40 };

/** What the GPU part measured. */
export interface GpuBench {
  readonly backend: WebGpuBackend;
  readonly limits: MeasuredLimits;
  readonly lines: readonly BenchLine[];
}

/** Opens the GPU with all that the bench can use; null, after one line, where there is none. */
async function openGpu(): Promise<WebGpuBackend | null> {
  const request = await requestDevice("high-performance", true, ["shader-f16"]);
  if (!request.device) {
    console.log(`GPU: left out, ${request.why}`);
    return null;
  }
  if (!request.device.features.has("timestamp-query")) {
    console.log("GPU: left out, the adapter has no timestamp-query");
    return null;
  }
  return await openWebGpuBackend(request.device, {
    isBorrowed: false,
    info: request.info,
    reason: "the bench",
  });
}

/** Runs the GPU part. `filter` picks cases by their printed names. */
export async function benchGpu(
  { quick, filter }: { quick: boolean; filter: string },
): Promise<GpuBench | null> {
  const backend = await openGpu();
  if (!backend) return null;
  const { adapter, description } = backend.report();
  const isSmall = adapter?.isFallback ?? false;
  const budget = quick || isSmall ? QUICK : FULL;
  console.log(`GPU: ${description}`);
  const limits = await measureLimits(backend, budget);
  console.log(
    `  limits: read ${limits.readGbPerSecond.toFixed(0)} GB/s, ` +
      `f32 ${limits.f32Tflops.toFixed(1)} TFLOP/s, ` +
      (limits.f16Tflops === null ? "" : `f16 ${limits.f16Tflops.toFixed(1)} TFLOP/s, `) +
      `empty dispatch ${limits.dispatchMicroseconds.toFixed(2)} us, ` +
      `round trip ${limits.roundTripMicroseconds.toFixed(0)} us`,
  );
  const lines: BenchLine[] = [];
  const timer = new GpuTimer(backend.device);
  for (const wanted of isSmall ? SMALL_DECODE_CASES : DECODE_CASES) {
    const name = caseName(wanted);
    if (!name.includes(filter)) continue;
    try {
      const line = await benchDecode(backend, timer, wanted, limits, budget);
      lines.push(line);
      console.log(`  ${name.padEnd(48)} ${describeLine(line)}`);
    } catch (error) {
      console.log(`  ${name.padEnd(48)} left out: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  timer.destroy();
  if (description.includes("H200")) lines.push(...flashInferLines());
  return { backend, limits, lines };
}

/** A case as the table and the filter name it. */
export function caseName({ shape: s, kvDtype }: DecodeCase): string {
  return `decode ${s.batch} x ${s.kvLen} keys, ${s.numQoHeads}/${s.numKvHeads}, ${kvDtype}`;
}

function describeLine({ time, bytes, flops, bound, share, fitsCache }: BenchLine): string {
  const rate = bound === "bandwidth"
    ? `${(bytes / time.median / 1000).toFixed(0).padStart(5)} GB/s   `
    : `${(flops / time.median / 1e6).toFixed(1).padStart(5)} TFLOP/s`;
  return `${time.median.toFixed(1).padStart(9)} us (${time.min.toFixed(1)} to ` +
    `${time.max.toFixed(1)})  ${rate}  ${(100 * share!).toFixed(0).padStart(3)} % of its ${bound}` +
    (fitsCache ? ", may fit the cache" : "");
}
