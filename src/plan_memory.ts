/**
 * What plans of a token loop repeat: sizes and options, which are checked once. Pure.
 *
 * @module
 */

import { entriesOf } from "./option_checks.ts";

/** Sizes and options that were found right, by the names in `names`; lists and objects are copied. */
export interface Given {
  readonly names: readonly string[];
  readonly values: readonly unknown[];
}

/** Remembers what of `plan` has these names. */
export function rememberGiven(plan: object, names: readonly string[]): Given {
  const values = names.map((name) => {
    const value = plan[name as never] as unknown;
    return isList(value) ? entriesOf(value) : isObject(value) ? { ...value } : value;
  });
  return { names, values };
}

/** Whether `plan` has the same numbers and words, and lists and objects of them. */
export function isGiven(plan: object, { names, values }: Given): boolean {
  for (let i = 0; i < names.length; i++) {
    if (!isSame(values[i], plan[names[i] as never])) return false;
  }
  return true;
}

function isSame(known: unknown, value: unknown): boolean {
  if (!isObject(known) || !isObject(value)) return Object.is(known, value);
  return isList(known) === isList(value) && sizeOf(known) === sizeOf(value) &&
    Object.keys(known).every((name) => Object.is(known[name as never], value[name as never]));
}

function sizeOf(value: object): number {
  return isList(value) ? value.length : Object.keys(value).length;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || ArrayBuffer.isView(value);
}
