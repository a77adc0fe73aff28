/**
 * What ends a bench for a reason that a person can put right.
 *
 * @module
 */

/** Said in one line, without a stack; the exit code is 2. */
export class BenchError extends Error {
  /** Makes one line of any message, since parsers and systems answer with several. */
  constructor(message: string) {
    super(message.replace(/\s+/g, " ").trim());
    this.name = "BenchError";
  }
}

/** The first line of whatever was thrown, for a line that says what is left out. */
export function firstLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.trim().split("\n")[0];
}
