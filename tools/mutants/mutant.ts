/**
 * An edit that breaks something, and the tests that should find it.
 *
 * @module
 */

/** One edit of one file. */
export interface Mutant {
  readonly name: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
  /** The test files that should catch it, with a filter. */
  readonly tests: readonly string[];
  readonly filter?: string;
}

/** A mutant; see {@linkcode Mutant}. */
export function mutant(
  name: string,
  file: string,
  from: string,
  to: string,
  tests: readonly string[],
  filter?: string,
): Mutant {
  return { name, file, from, to, tests, filter };
}
