/**
 * What planned calls have in common: the sizes and dtypes that a plan names, and the tensors that a run
 * must then bring. Pure.
 *
 * @module
 */

import type { TensorSpec } from "./attention_shapes.ts";
import { type DType, DTYPES, type KvDTypes } from "./dtype.ts";
import { OptionError, PlanError } from "./errors.ts";
import { checkInteger, checkNames, checkWord } from "./option_checks.ts";
import { isSameShape, show } from "./shape.ts";

/** What each tensor of a run must be. */
export type PlannedTensors<Name extends string> = Readonly<Record<Name, TensorSpec>>;

/** The sizes that a plan names, unchecked. */
export interface PlanSizes {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly headDimV?: number;
}

/** Checks a plan's sizes. Throws `OptionError`. */
export function checkPlanSizes(plan: PlanSizes): Required<PlanSizes> {
  const [numQoHeads, numKvHeads, headDim, headDimV] = [
    ["numQoHeads", plan.numQoHeads],
    ["numKvHeads", plan.numKvHeads],
    ["headDim", plan.headDim],
    ["headDimV", plan.headDimV ?? plan.headDim],
  ].map(([name, value]) => checkPlanSize(`options.${name}`, value));
  if (numQoHeads % numKvHeads !== 0) {
    throw new OptionError("options.numQoHeads", {
      got: `${numQoHeads} query heads over ${numKvHeads} KV heads`,
      expected: "a positive multiple of the number of KV heads",
      hint: "Any group size will do, but every KV head must serve equally many query heads.",
    });
  }
  return { numQoHeads, numKvHeads, headDim, headDimV };
}

/** What no kernel goes beyond: tables of so many heads can still be made. */
const MOST_SIZE = 2 ** 16;

/** Checks one of a plan's sizes. Throws `OptionError`. */
export function checkPlanSize(subject: string, value: unknown): number {
  const size = checkInteger(subject, value, 1);
  if (size <= MOST_SIZE) return size;
  throw new OptionError(subject, {
    got: show(value),
    expected: `an integer from 1 to ${MOST_SIZE}`,
    hint: "Look at the order of the sizes.",
  });
}

/** Checks a dtype that a plan names. Throws `OptionError`. */
export function checkPlanDtype(subject: string, value: unknown): DType {
  return checkWord(subject, value, DTYPES, "Say what the tensors of run will hold.");
}

/** Checks the dtype of a cache, one or two. Throws `OptionError`. */
export function checkKvDtype(subject: string, value: unknown): KvDTypes {
  const check = (subject: string, value: unknown) =>
    checkWord(
      subject,
      value,
      DTYPES,
      "Say how keys and values are stored; { k, v } names a dtype for each.",
    );
  if (typeof value !== "object" || value === null || !("k" in value || "v" in value)) {
    const dtype = check(subject, value);
    return { kDtype: dtype, vDtype: dtype };
  }
  checkNames(value, ["k", "v"], `${subject}.`);
  const { k, v } = value as { readonly k?: unknown; readonly v?: unknown };
  return { kDtype: check(`${subject}.k`, k), vDtype: check(`${subject}.v`, v) };
}

/** Checks a tensor of `run` against the plan. */
export function checkPlanned(
  name: string,
  { shape, dtype }: TensorSpec,
  planned: TensorSpec,
): void {
  const hint = "Call plan() again for other sizes or dtypes.";
  if (!isSameShape(shape, planned.shape)) {
    throw new PlanError(name, {
      got: `shape ${show(shape)}`,
      expected: `${show(planned.shape)}, by the plan`,
      hint,
    });
  }
  if (dtype !== planned.dtype) {
    throw new PlanError(name, { got: dtype, expected: `${planned.dtype}, by the plan`, hint });
  }
}
