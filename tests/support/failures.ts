/**
 * What a failure must be: an error of its type and code that says what was got, what was expected
 * and what to do.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  DestroyedError,
  DeviceLostError,
  DeviceMismatchError,
  DTypeError,
  KvasirError,
  LimitError,
  OptionError,
  PlanError,
  ShapeError,
} from "@kvasir/attention";

/** The name of an error's class. */
export type ErrorKind =
  | "ShapeError"
  | "DTypeError"
  | "OptionError"
  | "PlanError"
  | "LimitError"
  | "DestroyedError"
  | "DeviceMismatchError"
  | "DeviceLostError";

/** Its class and its code. */
const KINDS: Readonly<Record<ErrorKind, readonly [typeof ShapeError, code: string]>> = {
  ShapeError: [ShapeError, "KVASIR_SHAPE"],
  DTypeError: [DTypeError, "KVASIR_DTYPE"],
  OptionError: [OptionError, "KVASIR_OPTION"],
  PlanError: [PlanError, "KVASIR_PLAN"],
  LimitError: [LimitError, "KVASIR_LIMIT"],
  DestroyedError: [DestroyedError, "KVASIR_DESTROYED"],
  DeviceMismatchError: [DeviceMismatchError, "KVASIR_DEVICE_MISMATCH"],
  DeviceLostError: [DeviceLostError, "KVASIR_DEVICE_LOST"],
};

/**
 * Fails unless `work` throws, or its promise rejects, with an error of `kind` whose message begins
 * with `subject` and matches every pattern.
 */
export async function assertFails(
  label: string,
  work: () => unknown,
  kind: ErrorKind,
  subject: string,
  ...patterns: readonly RegExp[]
): Promise<void> {
  const error = await failureOf(label, work);
  const [type, code] = KINDS[kind];
  const shown = `${label}: ${error instanceof Error ? error.stack : error}`;
  assert.ok(error instanceof KvasirError && error instanceof type, shown);
  assert.deepEqual([error.name, error.code], [kind, code], shown);
  assert.ok(error.message.startsWith(`${subject}: `), shown);
  for (const part of [error.got, error.expected, error.hint]) {
    assert.ok(part.length > 0 && error.message.includes(part), shown);
  }
  for (const pattern of patterns) assert.match(error.message, pattern, label);
}

async function failureOf(label: string, work: () => unknown): Promise<unknown> {
  let result: unknown;
  try {
    result = await work();
  } catch (error) {
    return error;
  }
  assert.fail(`${label}: no failure, but ${result}`);
}
