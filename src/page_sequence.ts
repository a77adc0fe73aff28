/**
 * A sequence of a page table as its users hold it: an opaque handle with a length and pages.
 *
 * @module
 */

import { DestroyedError } from "./errors.ts";

/** What the table knows of a sequence. */
export interface SequenceState {
  /** The table that it belongs to. */
  readonly table: object;
  /** Its pages in order: always as many as its tokens need. */
  readonly pages: number[];
  /** Its tokens. */
  length: number;
  isFreed: boolean;
  /** The last reserve() that named it: tells whether one names it twice. */
  round: number;
}

/** The state behind a handle, or null for anything else; the table's way in. */
export let stateOf: (value: unknown) => SequenceState | null;

/** A sequence of a `PageTable`, which makes, forks and frees it. */
export class PageSequence {
  readonly #state: SequenceState;

  /** For the table only. */
  constructor(state: SequenceState) {
    this.#state = state;
  }

  /**
   * Its tokens.
   *
   * @throws {DestroyedError} after it was freed.
   */
  get length(): number {
    return checkAlive("sequence", this.#state).length;
  }

  /**
   * A copy of its pages, in order.
   *
   * @throws {DestroyedError} after it was freed.
   */
  get pages(): Int32Array<ArrayBuffer> {
    return Int32Array.from(checkAlive("sequence", this.#state).pages);
  }

  static {
    stateOf = (value) =>
      typeof value === "object" && value !== null && #state in value ? value.#state : null;
  }
}

/** Throws `DestroyedError` for the state of a freed sequence. */
export function checkAlive(subject: string, state: SequenceState): SequenceState {
  if (!state.isFreed) return state;
  throw new DestroyedError(subject, {
    got: "a freed sequence",
    expected: "one that is in use",
    hint: "Its pages may be another's by now; fork a sequence before freeing it to keep them.",
  });
}

/** The last page of a sequence that is not empty. */
export function lastPage({ pages }: SequenceState): number {
  return pages[pages.length - 1];
}
