/**
 * What plans of a token loop repeat: sizes and options, which are checked once. Pure.
 *
 * @module
 */

import { entriesOf } from "./option_checks.ts";

/** Sizes and options that were found right, by the names in `names`; lists are copied. */
export interface Given {
  readonly names: readonly string[];
  readonly values: readonly unknown[];
}

/** Remembers what of `plan` has these names. */
export function rememberGiven(plan: object, names: readonly string[]): Given {
  const values = names.map((name) => {
    const value = plan[name as never] as unknown;
    return isList(value) ? entriesOf(value) : value;
  });
  return { names, values };
}

/** Whether `plan` has the same numbers, words and lists of them. */
export function isGiven(plan: object, { names, values }: Given): boolean {
  for (let i = 0; i < names.length; i++) {
    if (!isSame(values[i], plan[names[i] as never])) return false;
  }
  return true;
}

function isSame(known: unknown, value: unknown): boolean {
  if (Object.is(known, value)) return typeof value !== "object" || value === null;
  if (!Array.isArray(known) || !isList(value) || value.length !== known.length) return false;
  for (let i = 0; i < known.length; i++) if (!Object.is(known[i], value[i])) return false;
  return true;
}

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || ArrayBuffer.isView(value);
}
