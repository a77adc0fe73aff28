/**
 * Merging states: from the shapes and dtypes of a call to a {@linkcode MergeProblem}. Pure.
 *
 * @module
 */

import { KEEP_ROW, type MergeProblem } from "./attention_problem.ts";
import type { TensorSpec } from "./attention_shapes.ts";
import { DTypeError, OptionError, ShapeError } from "./errors.ts";
import { checkList, checkNames } from "./option_checks.ts";
import { show } from "./shape.ts";

/** A state: outputs, and the lse of each row and head. */
export interface StateSpec {
  readonly v: TensorSpec;
  readonly s: TensorSpec;
}

/** Options of {@linkcode mergeStateInPlace}. */
export interface MergeInPlaceOptions {
  /** The rows to merge: n booleans. The others stay as they are. Default: all rows. */
  mask?: ArrayLike<boolean>;
}

/** Checks two states of n rows, and merges rows of the same number, of which a mask may keep some as they are. */
export function mergePair(
  a: StateSpec,
  b: StateSpec,
  names: readonly [vA: string, sA: string, vB: string, sB: string],
  options: MergeInPlaceOptions = {},
): MergeProblem {
  const [numRows, numHeads, headDim] = checkValues(names[0], a.v, ["n", "H", "D"]);
  checkValues(names[2], b.v, ["n", "H", "D"]);
  if (show(b.v.shape) !== show(a.v.shape)) {
    throw new ShapeError(names[2], {
      got: `shape ${show(b.v.shape)}`,
      expected: `${names[0]}'s shape, ${show(a.v.shape)}`,
      hint: "States are merged row by row.",
    });
  }
  if (b.v.dtype !== a.v.dtype) {
    throw new DTypeError(names[2], {
      got: b.v.dtype,
      expected: `${names[0]}'s dtype, ${a.v.dtype}`,
      hint: "Both states have one dtype.",
    });
  }
  checkSums(names[1], a.s, [numRows, numHeads]);
  checkSums(names[3], b.s, [numRows, numHeads]);
  const mask = checkMask(options, numRows);
  const rows = new Uint32Array(numRows * 4);
  for (let row = 0; row < numRows; row++) {
    rows.set(mask === null || mask[row] ? [row, 1, row, 1] : [row, KEEP_ROW, 0, 0], row * 4);
  }
  return { numRows, numHeads, headDim, vDtype: a.v.dtype, outDtype: a.v.dtype, rows };
}

/** Checks n rows of S states each. */
export function mergeMany({ v, s }: StateSpec): MergeProblem {
  const [numRows, states, numHeads, headDim] = checkValues("v", v, ["n", "S", "H", "D"]);
  checkSums("s", s, [numRows, states, numHeads]);
  const rows = new Uint32Array(numRows * 4);
  for (let row = 0; row < numRows; row++) rows.set([row * states, states, 0, 0], row * 4);
  return { numRows, numHeads, headDim, vDtype: v.dtype, outDtype: v.dtype, rows };
}

function checkValues(
  name: string,
  { shape }: TensorSpec,
  dims: readonly string[],
): readonly number[] {
  if (shape.length === dims.length && shape[shape.length - 1] > 0) return shape;
  throw new ShapeError(name, {
    got: `shape ${show(shape)}`,
    expected: `${dims.length} dims, [${dims.join(", ")}], with D of at least 1`,
    hint: "A state is what attention gives with returnLse: out and lse.",
  });
}

function checkSums(name: string, { shape, dtype }: TensorSpec, expected: readonly number[]): void {
  if (show(shape) !== show(expected)) {
    throw new ShapeError(name, {
      got: `shape ${show(shape)}`,
      expected: show(expected),
      hint: "There is one lse for each row and head.",
    });
  }
  if (dtype === "float32") return;
  throw new DTypeError(name, {
    got: dtype,
    expected: "float32",
    hint: "It is the lse that attention gives, in base 2.",
  });
}

function checkMask(options: MergeInPlaceOptions, numRows: number): readonly unknown[] | null {
  checkNames(options, ["mask"]);
  if (options.mask === undefined) return null;
  const hint = "Give true or false for each row.";
  const mask = checkList("options.mask", options.mask, hint);
  if (mask.length !== numRows || !mask.every((value) => typeof value === "boolean")) {
    throw new OptionError("options.mask", {
      got: `${show(mask)} (${mask.length} values)`,
      expected: `${numRows} booleans`,
      hint,
    });
  }
  return mask;
}
