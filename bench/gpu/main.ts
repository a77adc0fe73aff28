/**
 * The GPU part of the bench: limits, then every decode case, with its share of the limit.
 *
 * @module
 */

import { openWebGpuBackend, type WebGpuBackend } from "../../src/webgpu/backend.ts";
import { requestDevice } from "../../src/webgpu/request_device.ts";
import { flashInferLines } from "../peers/flashinfer.ts";
import type { BenchLine, MeasuredLimits } from "../results.ts";
import { benchOnnxDecode } from "../peers/ort_webgpu.ts";
import { benchDecode, DECODE_CASES, type DecodeCase, SMALL_DECODE_CASES } from "./decode.ts";
import { measureLimits } from "./limits.ts";
import { sweepDecode, type SweepEntry, type SweepLists } from "./sweep.ts";
import { GpuTimer, type TimingBudget } from "./timing.ts";

const FULL: TimingBudget = { passes: 9, passMilliseconds: 10, warmMilliseconds: 150 };
const QUICK: TimingBudget = { passes: 5, passMilliseconds: 4, warmMilliseconds: 40 };

/** What the GPU part measured. */
export interface GpuBench {
  readonly backend: WebGpuBackend;
  readonly limits: MeasuredLimits;
  readonly lines: readonly BenchLine[];
  readonly sweep: readonly SweepEntry[];
}

/** What the command line asks of the GPU part. */
export interface GpuBenchOptions {
  readonly quick: boolean;
  /** Keeps the cases whose names hold it. */
  readonly filter: string;
  /** Tuning constants to try in all combinations, instead of timing what is there. */
  readonly sweep: SweepLists | null;
  /** Whether to time onnxruntime-web beside us. */
  readonly peers: boolean;
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

/** Runs the GPU part. */
export async function benchGpu(options: GpuBenchOptions): Promise<GpuBench | null> {
  const { quick, filter } = options;
  const backend = await openGpu();
  if (!backend) return null;
  const { adapter, description } = backend.report();
  const isSmall = adapter?.isFallback ?? false;
  const budget = quick || isSmall ? QUICK : FULL;
  console.log(`GPU: ${description}`);
  const limits = await measureLimits(backend, budget);
  console.log(
    `  limits: read ${limits.readGbPerSecond.toFixed(0)} GB/s, ` +
      `f32 ${limits.f32Tflops.toPrecision(3)} TFLOP/s, ` +
      (limits.f16Tflops === null ? "" : `f16 ${limits.f16Tflops.toPrecision(3)} TFLOP/s, `) +
      `empty dispatch ${limits.dispatchMicroseconds.toFixed(2)} us, ` +
      `round trip ${limits.roundTripMicroseconds.toFixed(0)} us`,
  );
  const cases = (isSmall ? SMALL_DECODE_CASES : DECODE_CASES)
    .filter((wanted) => caseName(wanted).includes(filter));
  const timer = new GpuTimer(backend.device);
  try {
    if (options.sweep) {
      const lists = options.sweep;
      const sweep = await sweepDecode(backend, timer, cases, lists, limits, budget, caseName);
      return { backend, limits, lines: [], sweep };
    }
    const lines = await timeCases(backend, timer, cases, limits, budget);
    if (options.peers) lines.push(...await timePeers(backend, cases, lines));
    return { backend, limits, lines, sweep: [] };
  } finally {
    timer.destroy();
  }
}

async function timeCases(
  backend: WebGpuBackend,
  timer: GpuTimer,
  cases: readonly DecodeCase[],
  limits: MeasuredLimits,
  budget: TimingBudget,
): Promise<BenchLine[]> {
  const lines: BenchLine[] = [];
  for (const wanted of cases) {
    const name = caseName(wanted).padEnd(48);
    try {
      const line = await benchDecode(backend, timer, wanted, limits, budget);
      lines.push(line);
      console.log(`  ${name} ${describeLine(line)}`);
    } catch (error) {
      console.log(`  ${name} left out: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  return lines;
}

/** onnxruntime-web on the same device, and FlashInfer as it was recorded on the same kind of card. */
async function timePeers(
  backend: WebGpuBackend,
  cases: readonly DecodeCase[],
  ours: readonly BenchLine[],
): Promise<BenchLine[]> {
  const halves = cases.filter(({ kvDtype }) => kvDtype === "float16");
  const lines = await benchOnnxDecode(halves.map(({ shape }) => shape));
  for (const { shape, time } of lines) {
    const own = ours.find((line) => line.shape === shape && line.dtype === "float16");
    const ratio = own ? `, ${(time.median / own.time.median).toFixed(1)} x our time` : "";
    const name = `onnxruntime-web ${caseName({ shape: shape!, kvDtype: "float16" })}`;
    console.log(`  ${name.padEnd(48)} ${time.median.toFixed(1).padStart(9)} us${ratio}`);
  }
  return backend.report().description.includes("H200") ? [...lines, ...flashInferLines()] : lines;
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
