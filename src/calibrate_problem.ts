/**
 * Calibration: its options, checked, and where the heads lie in what it is given. Pure.
 *
 * @module
 */

import type { TensorSpec } from "./attention_shapes.ts";
import { type Fp8DType, isFp8DType } from "./dtype.ts";
import { DTypeError, OptionError, ShapeError } from "./errors.ts";
import { checkNames, checkNumber, checkWord } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import { elementCount, show } from "./shape.ts";

/** Options of {@linkcode calibrate}. */
export interface CalibrateOptions {
  /** The format that the values will be stored in. */
  dtype: Fp8DType;
  /** One scale for all values, or one for each head. Default `"tensor"`. */
  granularity?: "tensor" | "head";
  /**
   * Where the heads are, for `granularity: "head"`: the second dim from the end in `"NHD"`
   * (`[L, H, D]`, pages, rows to append, queries), the third in `"HND"`. Default `"NHD"`.
   */
  kvLayout?: KvLayout;
  /** The heads' dim itself, instead of `kvLayout`; negative from the end. */
  headAxis?: number;
  /**
   * The shape of plain arrays, needed for `granularity: "head"`. One dim may be -1: as many as an
   * array has, so that batches may differ. For example `[-1, 8, 128]`.
   */
  shape?: readonly number[];
  /**
   * Which percentile of |x| lands on the format's largest finite value: above 0, at most 100. Default
   * 100, the largest |x|: FP8 is a float, so small values lose nothing by a large scale, and clipping
   * gains nothing. Lower it only for data with freak values.
   */
  percentile?: number;
}

/** Checked options. */
export interface CalibrateProblem {
  readonly dtype: Fp8DType;
  readonly granularity: "tensor" | "head";
  readonly headAxis: number;
  readonly shape: readonly number[] | null;
  readonly percentile: number;
}

const NAMES = ["dtype", "granularity", "kvLayout", "headAxis", "shape", "percentile"];

/** Checks a call's options. Throws `DTypeError` or `OptionError`. */
export function calibrating(options: CalibrateOptions): CalibrateProblem {
  checkNames(options, NAMES);
  const { dtype, granularity = "tensor", kvLayout, headAxis, shape, percentile = 100 } = options;
  if (!isFp8DType(dtype)) {
    throw new DTypeError("options.dtype", {
      got: show(dtype),
      expected: `"float8_e4m3fn" or "float8_e5m2"`,
      hint: "Formats of 16 bits and more need no scale.",
    });
  }
  return {
    dtype,
    granularity: checkWord(
      "options.granularity",
      granularity,
      ["tensor", "head"],
      "Scales of single tokens are not static, so nothing can be calibrated for them.",
    ),
    headAxis: checkHeadAxis(kvLayout, headAxis),
    shape: shape === undefined ? null : checkArrayShape(shape),
    percentile: checkPercentile(percentile),
  };
}

function checkHeadAxis(kvLayout: unknown, headAxis: unknown): number {
  if (headAxis === undefined) {
    const hint = "It says which dim the heads are: the second or the third from the end.";
    return checkWord("options.kvLayout", kvLayout ?? "NHD", ["NHD", "HND"], hint) === "NHD"
      ? -2
      : -3;
  }
  if (Number.isSafeInteger(headAxis) && kvLayout === undefined) return headAxis as number;
  throw new OptionError("options.headAxis", {
    got: kvLayout === undefined ? show(headAxis) : "headAxis and kvLayout",
    expected: kvLayout === undefined ? "an integer" : "one of them",
    hint: "Both say where the heads are; -2 is NHD, -3 is HND.",
  });
}

function checkArrayShape(shape: unknown): readonly number[] {
  const dims: unknown[] = Array.isArray(shape) ? Array.from(shape) : [null];
  const isDim = (dim: unknown) => Number.isSafeInteger(dim) && (dim as number) >= -1;
  if (dims.every(isDim) && dims.filter((dim) => dim === -1).length <= 1) return dims as number[];
  throw new OptionError("options.shape", {
    got: show(shape),
    expected: "an array of integers of at least 0, of which one may be -1",
    hint: "For example [-1, 8, 128] for any number of tokens of 8 heads of 128.",
  });
}

function checkPercentile(value: unknown): number {
  const percentile = checkNumber("options.percentile", value);
  if (percentile > 0 && percentile <= 100) return percentile;
  throw new OptionError("options.percentile", {
    got: show(value),
    expected: "a number above 0 and at most 100",
    hint: "100 is the largest |x|; 99.99 leaves out one value of ten thousand.",
  });
}

/** The shape of a plain array of `length` values, by `options.shape`. */
export function arrayShape(
  subject: string,
  length: number,
  { shape, granularity }: CalibrateProblem,
): readonly number[] {
  if (shape === null) {
    if (granularity === "tensor") return [length];
    throw new OptionError("options.shape", {
      got: `none, with a plain array and granularity "head"`,
      expected: "the array's shape",
      hint: "For example [-1, 8, 128] for any number of tokens of 8 heads of 128.",
    });
  }
  const known = elementCount(shape.filter((dim) => dim !== -1));
  const free = known === 0 ? 0 : length / known;
  const dims = shape.map((dim) => dim === -1 ? free : dim);
  if (Number.isSafeInteger(free) && elementCount(dims) === length) return dims;
  throw new ShapeError(subject, {
    got: `${length} values`,
    expected: `as many as options.shape says, ${show(shape)}`,
    hint: "One dim of the shape may be -1: as many as there are.",
  });
}

/** Values of `heads` heads lie in runs of `inner`, head after head, again and again. */
export interface HeadRuns {
  readonly heads: number;
  readonly inner: number;
}

/** Where the heads of a batch lie. Throws `ShapeError`. */
export function headRuns(
  subject: string,
  { shape }: Pick<TensorSpec, "shape">,
  { granularity, headAxis }: CalibrateProblem,
): HeadRuns {
  if (granularity === "tensor") return { heads: 1, inner: elementCount(shape) };
  const axis = headAxis < 0 ? shape.length + headAxis : headAxis;
  if (axis >= 0 && axis < shape.length && shape[axis] > 0) {
    return { heads: shape[axis], inner: elementCount(shape.slice(axis + 1)) };
  }
  throw new ShapeError(subject, {
    got: `shape ${show(shape)}`,
    expected: `a dim ${headAxis} of at least 1, the heads`,
    hint: `NHD has the heads second from the end, HND third; headAxis names another dim.`,
  });
}
