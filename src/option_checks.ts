/**
 * Checks of single options. Pure; each fails with an error that says what to do.
 *
 * @module
 */

import { OptionError } from "./errors.ts";
import { show } from "./shape.ts";

/** Refuses what is no object, or has names that the call does not know. */
export function checkNames(options: object, known: readonly string[], prefix = "options."): void {
  if (typeof options !== "object" || options === null) {
    throw new OptionError("options", {
      got: show(options),
      expected: "an object",
      hint: `For example { kvLayout: "NHD", posEncodingMode: "NONE" }.`,
    });
  }
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    throw new OptionError(`${prefix}${name}`, {
      got: "an option that this call does not know",
      expected: `one of ${known.join(", ")}`,
      hint: "Check the spelling; names are camelCase.",
    });
  }
}

/** One of some words. */
export function checkWord<Word extends string>(
  subject: string,
  value: unknown,
  words: readonly Word[],
  hint: string,
): Word {
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  const quoted = words.map((word) => `"${word}"`);
  throw new OptionError(subject, {
    got: show(value),
    expected: `${quoted.slice(0, -1).join(", ")} or ${quoted[quoted.length - 1]}`,
    hint,
  });
}

/** Whether the kernels, which compute in float32, can hold a number. */
function isFloat32(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(Math.fround(value));
}

/** A number that is finite in float32. */
export function checkNumber(subject: string, value: unknown): number {
  if (isFloat32(value)) return value;
  throw new OptionError(subject, {
    got: show(value),
    expected: "a number that is finite in float32",
    hint: "Leave the option out for its default.",
  });
}

/** The smallest number of which a float32 holds all digits, and 1 / it. */
const LEAST_POSITIVE = 2 ** -126;

/** A number above 0, or, where that stands for "off", 0. */
export function checkPositive(subject: string, value: unknown, orZero = false): number {
  const number = checkNumber(subject, value);
  if (number >= LEAST_POSITIVE || (orZero && number === 0)) return number;
  throw new OptionError(subject, {
    got: show(value),
    expected: `${orZero ? "0, or " : ""}a number above 0 (2^-126 or more)`,
    hint: "Leave the option out for its default.",
  });
}

/** The largest scale whose inverse is no subnormal, which GPUs may take for 0. */
const MOST_SCALE = 2 ** 126;

/** A number above 0 whose inverse, which values are multiplied by, a float32 holds too. */
export function checkScale(subject: string, value: unknown): number {
  const scale = checkPositive(subject, value);
  if (scale <= MOST_SCALE) return scale;
  throw new OptionError(subject, {
    got: show(value),
    expected: "a scale of at most 2^126",
    hint: "Values are multiplied by 1 / scale, which must be a float32 above 0.",
  });
}

/** An integer of at least `least`. */
export function checkInteger(subject: string, value: unknown, least: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= least) return value as number;
  throw new OptionError(subject, {
    got: show(value),
    expected: `an integer of at least ${least}`,
    hint: "Leave the option out for its default.",
  });
}

/** True or false. */
export function checkBoolean(subject: string, value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw new OptionError(subject, {
    got: show(value),
    expected: "true or false",
    hint: "Leave the option out for its default.",
  });
}

/** An array or a typed array, whose entries the caller may change later. */
export function checkArray(subject: string, value: unknown, hint: string): ArrayLike<unknown> {
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    return value as ArrayLike<unknown>;
  }
  throw new OptionError(subject, { got: show(value), expected: "an array of numbers", hint });
}

/** A copy by index, whatever the array's own iterator gives; its length is known to be right. */
export function entriesOf(list: ArrayLike<unknown>): unknown[] {
  const entries: unknown[] = [];
  const { length } = list;
  for (let i = 0; i < length; i++) entries.push(list[i]);
  return entries;
}

/** A copy of an array or a typed array. */
export function checkList(subject: string, value: unknown, hint: string): readonly unknown[] {
  return Array.from(checkArray(subject, value, hint));
}

/** A number for each of `count` heads, from one for all or a list. */
export function checkHeadValues(
  subject: string,
  value: unknown,
  count: number,
  heads: string,
): Float32Array<ArrayBuffer> {
  if (typeof value === "number") {
    return new Float32Array(count).fill(checkNumber(subject, value));
  }
  const hint = `Give one number, or one for each of the ${count} ${heads}.`;
  const list = checkArray(subject, value, hint);
  if (list.length !== count) {
    throw new OptionError(subject, {
      got: `${list.length} numbers`,
      expected: `${count}, one for each of the ${heads}`,
      hint,
    });
  }
  return Float32Array.from(entriesOf(list), (item, i) => checkNumber(`${subject}[${i}]`, item));
}
