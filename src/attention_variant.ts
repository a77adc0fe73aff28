/**
 * Variants of the caller's, checked. Pure: whether the text is WGSL is for the compiler to say.
 *
 * @module
 */

import type { AttentionVariant } from "./attention_problem.ts";
import { OptionError } from "./errors.ts";
import { checkNumber } from "./option_checks.ts";
import type { VariantOptions } from "./options.ts";
import { show } from "./shape.ts";

/** Parameters at most: a struct of WGSL may not have more members. */
const MOST_PARAMS = 1023;

/** Checks the options of a variant. */
export function checkVariant(options: VariantOptions): { variant: AttentionVariant | null } {
  const { logitsTransform, logitsMask, variantParams } = options;
  const transform = checkText("options.logitsTransform", logitsTransform);
  const mask = checkText("options.logitsMask", logitsMask);
  const params = checkParams(variantParams);
  if (transform === null && mask === null) return { variant: null };
  return { variant: { logitsTransform: transform, logitsMask: mask, params } };
}

function checkText(subject: string, value: unknown): string | null {
  if (value === undefined) return null;
  if (typeof value === "string" && value.trim() !== "") return value;
  throw new OptionError(subject, {
    got: show(value),
    expected: "the body of a WGSL function",
    hint: 'For example "return logit * params.factor;".',
  });
}

function checkParams(value: unknown): [string, number][] {
  const subject = "options.variantParams";
  if (value === undefined) return [];
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new OptionError(subject, {
      got: show(value),
      expected: "an object of numbers by name",
      hint: "For example { factor: 2 }, which the WGSL finds as params.factor.",
    });
  }
  const entries = Object.entries(value);
  if (entries.length > MOST_PARAMS) {
    throw new OptionError(subject, {
      got: `${entries.length} numbers`,
      expected: `at most ${MOST_PARAMS}`,
      hint: "Use a mask for what is different for every key.",
    });
  }
  return entries.map(([name, number]) => {
    if (!/^[A-Za-z][A-Za-z0-9_]*$/.test(name)) {
      throw new OptionError(subject, {
        got: `the name ${show(name)}`,
        expected: "a WGSL identifier",
        hint: "Letters, digits and _, beginning with a letter.",
      });
    }
    return [name, checkNumber(`${subject}.${name}`, number)];
  });
}
