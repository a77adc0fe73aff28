/**
 * Static scales for FP8 caches from samples of what they will hold: `calibrate`.
 *
 * @module
 */

import {
  arrayShape,
  type CalibrateOptions,
  type CalibrateProblem,
  calibrating,
  headRuns,
} from "./calibrate_problem.ts";
import { MagnitudeHistogram } from "./calibration_statistics.ts";
import type { Fp8DType } from "./dtype.ts";
import { OptionError, ShapeError } from "./errors.ts";
import { decodeFp8, encodeFp8 } from "./fp8.ts";
import { show } from "./shape.ts";
import { DeviceTensor, type Tensor } from "./tensor.ts";

/** What {@linkcode calibrate} found of the whole data, or of one head. */
export interface CalibrationReport {
  /** What stored values are to be multiplied with: a float32 above 0. */
  readonly scale: number;
  /** Values counted: the finite ones. */
  readonly count: number;
  /** NaN and infinities, which were left out. */
  readonly nonFinite: number;
  /** The largest |x|. */
  readonly max: number;
  /** The percentile of |x| that was asked for, within 0.4 %; `max` for 100. */
  readonly percentile: number;
  /** The share of values beyond the format's largest value with this scale: they become it. */
  readonly clipped: number;
  /**
   * Signal-to-quantization-noise ratio with this scale, in dB: sum of x² over sum of squared errors.
   * Infinity where nothing is lost. About 31.5 for e4m3 and 25.5 for e5m2 is as good as it gets.
   */
  readonly sqnr: number;
}

/** Scales, and what they cost. */
export interface Calibration<Scale extends number | Float32Array<ArrayBuffer>> {
  /** The format that the scales are for. */
  readonly dtype: Fp8DType;
  /** For `kScale`, `vScale` or `qScale`: a number, or with `granularity: "head"` one for each head. */
  readonly scale: Scale;
  /** One for all the data, or one for each head. */
  readonly report: readonly CalibrationReport[];
}

/** What {@linkcode calibrate} takes: one batch of values. */
export type CalibrationBatch = Tensor | Float32Array;

/** One batch, or many, one after another. */
export type CalibrationData =
  | CalibrationBatch
  | Iterable<CalibrationBatch>
  | AsyncIterable<CalibrationBatch>;

/** The largest finite value of each format. */
const LARGEST: Readonly<Record<Fp8DType, number>> = {
  float8_e4m3fn: 448,
  float8_e5m2: 57344,
};

/**
 * Static scales for an FP8 cache, from samples of the keys, values or queries that it will hold.
 *
 * A scale is `percentile(|x|) / largest finite value` (448 for e4m3fn, 57344 for e5m2), by default
 * with the largest |x|, and never clips then. It goes into `kScale`, `vScale`
 * or `qScale` of attention as it is, and into those of {@linkcode appendPagedKvCache}, or as `scale`
 * into {@linkcode quantize}. Where all values are 0, it is 1. Values that the samples did not show
 * and that are larger are clipped: multiply a scale by 2, which costs nothing, where that may happen.
 *
 * Many batches are taken in one after another and not kept: an iterable may yield a tensor and
 * destroy it when it is asked for the next. Tensors of WebGPU are read back.
 *
 * @param data A tensor of any dtype on any backend, a `Float32Array`, or an iterable (or async
 *   iterable) of them. All have as many heads.
 * @param options `dtype` is needed. See {@linkcode CalibrateOptions}.
 * @returns The scales and a report.
 * @throws {DTypeError} `OptionError` or `ShapeError` when an argument does not fit; whatever the
 *   iterable throws; from tensors `DestroyedError`, `DeviceLostError`, `OutOfMemoryError`.
 *
 * @example
 * ```ts
 * import { calibrate, openDevice, quantize } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * function* keys() { // [tokens, 2 heads, 4], batch after batch
 *   for (let i = 1; i <= 3; i++) {
 *     const values = Float32Array.from({ length: 5 * 2 * 4 }, (_, j) => i * Math.sin(j));
 *     using k = device.tensor(values, [5, 2, 4], "float16");
 *     yield k;
 *   }
 * }
 * const byHead = await calibrate(keys(), { dtype: "float8_e4m3fn", granularity: "head" });
 * console.log(byHead.scale); // Float32Array of 2: for kScale
 * console.log(byHead.report[0].max, byHead.report[0].sqnr);
 *
 * using k = device.tensor([1, -2, 1000, 3.1], [2, 2], "float16");
 * const { scale } = await calibrate(k, { dtype: "float8_e4m3fn" }); // 1000 / 448
 * using codes = await quantize(k, "float8_e4m3fn", { scale });
 * console.log(codes.dtype);
 * ```
 */
export function calibrate(
  data: CalibrationData,
  options: CalibrateOptions & { granularity: "head" },
): Promise<Calibration<Float32Array<ArrayBuffer>>>;
/** {@inheritDoc calibrate} */
export function calibrate(
  data: CalibrationData,
  options: CalibrateOptions & { granularity?: "tensor" },
): Promise<Calibration<number>>;
/** {@inheritDoc calibrate} */
export function calibrate(
  data: CalibrationData,
  options: CalibrateOptions,
): Promise<Calibration<number | Float32Array<ArrayBuffer>>>;
export async function calibrate(
  data: CalibrationData,
  options: CalibrateOptions,
): Promise<Calibration<number | Float32Array<ArrayBuffer>>> {
  const problem = calibrating(options);
  const histograms: MagnitudeHistogram[] = [];
  if (isBatch(data)) await take("data", data, problem, histograms);
  else if (!isIterable(data)) throw notData("data", data);
  else {
    let i = 0;
    for await (const batch of data) await take(`data, batch ${i++}`, batch, problem, histograms);
    if (i === 0) throw notData("data", data, "an iterable without a batch");
  }
  const report = histograms.map((histogram) => reportOf(histogram, problem));
  const scales = Float32Array.from(report, ({ scale }) => scale);
  const { dtype, granularity } = problem;
  return { dtype, scale: granularity === "head" ? scales : scales[0], report };
}

/** Adds a batch to the histograms: one, or one for each head, which the first batch makes. */
async function take(
  subject: string,
  batch: unknown,
  problem: CalibrateProblem,
  histograms: MagnitudeHistogram[],
): Promise<void> {
  if (!isBatch(batch)) throw notData(subject, batch);
  // The shape is looked at first: reading may take long.
  const shape = batch instanceof DeviceTensor
    ? batch.shape
    : arrayShape(subject, (batch as Float32Array).length, problem);
  const { heads, inner } = headRuns(subject, { shape }, problem);
  if (histograms.length === 0) {
    for (let head = 0; head < heads; head++) histograms.push(new MagnitudeHistogram());
  }
  if (heads !== histograms.length) {
    throw new ShapeError(subject, {
      got: `shape ${show(shape)}, with ${heads} heads`,
      expected: `${histograms.length} heads, as the batches before have`,
      hint: "Batches may differ in everything but their heads.",
    });
  }
  const values = batch instanceof DeviceTensor ? await batch.read() : batch as Float32Array;
  for (let start = 0, run = 0; start < values.length; start += inner, run++) {
    histograms[run % heads].add(values, start, inner);
  }
}

function reportOf(
  histogram: MagnitudeHistogram,
  { dtype, percentile: percent }: CalibrateProblem,
): CalibrationReport {
  const { count, nonFinite, max } = histogram;
  const percentile = histogram.percentile(percent);
  const top = percentile || max;
  const scale = scaleOf(top, LARGEST[dtype]);
  const inverse = Math.fround(1 / scale);
  const factor = Math.fround(scale);
  const round = (values: Float32Array<ArrayBuffer>) =>
    decodeFp8(encodeFp8(values.map((x) => x * inverse), dtype), dtype).map((x) => x * factor);
  const clipped = histogram.shareAbove(top);
  return { scale, count, nonFinite, max, percentile, clipped, sqnr: histogram.sqnr(round) };
}

/** A float32 whose inverse is one too, and neither is subnormal, which GPUs may take for 0. */
function scaleOf(magnitude: number, largest: number): number {
  if (magnitude === 0) return 1;
  return Math.fround(Math.min(2 ** 126, Math.max(2 ** -126, magnitude / largest)));
}

function isBatch(value: unknown): value is CalibrationBatch {
  return value instanceof DeviceTensor || value instanceof Float32Array;
}

function isIterable(
  value: unknown,
): value is Iterable<CalibrationBatch> | AsyncIterable<CalibrationBatch> {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return false;
  return Symbol.iterator in value || Symbol.asyncIterator in value;
}

function notData(subject: string, value: unknown, got: string = show(value)): OptionError {
  return new OptionError(subject, {
    got,
    expected: "a tensor, a Float32Array, or an iterable of at least one of them",
    hint:
      "Make a tensor with device.tensor(values, shape, dtype), or give Float32Array.from(numbers).",
  });
}
