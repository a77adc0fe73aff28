/**
 * What the GPU part prints on the terminal.
 *
 * @module
 */

import type { BenchLine, MeasuredLimits } from "../results.ts";

/** The limits, in one line. */
export function describeLimits(limits: MeasuredLimits): string {
  return `read ${limits.readGbPerSecond.toFixed(0)} GB/s, ` +
    `f32 ${limits.f32Tflops.toPrecision(3)} TFLOP/s, ` +
    (limits.f16Tflops === null ? "" : `f16 ${limits.f16Tflops.toPrecision(3)} TFLOP/s, `) +
    `empty dispatch ${limits.dispatchMicroseconds.toFixed(2)} us, ` +
    `round trip ${limits.roundTripMicroseconds.toFixed(0)} us`;
}

/** Time, spread, rate, share and wall time of one of our lines. */
export function describeLine(line: BenchLine): string {
  const { time, wall, bytes, flops, bound, share, fitsCache } = line;
  const rate = bound === "bandwidth"
    ? `${(bytes / time.median / 1000).toFixed(0).padStart(5)} GB/s   `
    : `${(flops / time.median / 1e6).toFixed(1).padStart(5)} TFLOP/s`;
  return `${time.median.toFixed(1).padStart(9)} us (${time.min.toFixed(1)} to ` +
    `${time.max.toFixed(1)})  ${rate}  ${(100 * share!).toFixed(0).padStart(3)} % of its ${bound}` +
    (wall ? `, call to read ${(wall.median / 1000).toFixed(2)} ms` : "") +
    (fitsCache ? ", may fit the cache" : "");
}
