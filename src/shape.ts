/**
 * Shapes: what is a shape, how many elements it has, how messages write it.
 *
 * @module
 */

import { ShapeError } from "./errors.ts";

/** A value as error messages show it: short, and never throwing. */
export function show(value: unknown): string {
  try {
    return describe(value);
  } catch {
    return "an object that cannot be shown"; // a getter or a proxy threw
  }
}

function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    const items = Array.from(value as ArrayLike<unknown>, describeItem);
    return items.length > 8 ? `[${items.slice(0, 8).join(", ")}, ...]` : `[${items.join(", ")}]`;
  }
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) {
    return `an ${Object.prototype.toString.call(value)}`;
  }
  return String(value);
}

/** Not String() of objects, which runs methods of the caller's. */
function describeItem(item: unknown): string {
  if (Array.isArray(item)) return "[...]";
  return typeof item === "string" ? item : describe(item);
}

/** A checked copy of `shape`. Throws `ShapeError` unless every dim is an integer of at least 0. */
export function checkShape(subject: string, shape: unknown): number[] {
  // A copy: the caller may change the array later. (Array.from also shows the holes of a sparse one.)
  const dims: unknown[] | null = Array.isArray(shape) ? Array.from(shape) : null;
  if (dims === null || !dims.every(isDim)) {
    throw new ShapeError(subject, {
      got: `shape ${show(shape)}`,
      expected: "an array of integers of at least 0",
      hint: "Give the shape as plain numbers, such as [16, 1024, 32, 128].",
    });
  }
  if (!Number.isSafeInteger(elementCount(dims))) {
    throw new ShapeError(subject, {
      got: `shape ${show(shape)}`,
      expected: "fewer than 2^53 elements",
      hint: "Check the order and the units of the dims.",
    });
  }
  return dims;
}

function isDim(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Whether two shapes have the same dims. */
export function isSameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The number of elements of a tensor of this shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}
