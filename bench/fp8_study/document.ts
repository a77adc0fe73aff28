/**
 * Documents that are written by hand around blocks which a program fills.
 *
 * @module
 */

import { BenchError } from "../bench_error.ts";

/** The comments that a block stands between. */
function marks(name: string): readonly [string, string] {
  return [`<!-- fp8:study ${name} -->`, `<!-- end of ${name} -->`];
}

/** The document with a new content in each of the named blocks. Each must be there once. */
export function fillBlocks(text: string, blocks: ReadonlyMap<string, string>): string {
  for (const [name, content] of blocks) {
    const [begin, end] = marks(name);
    const [before, rest, ...more] = text.split(begin);
    const at = rest?.indexOf(end) ?? -1;
    if (at < 0 || more.length > 0) throw new BenchError(`one "${begin}" and "${end}" are needed`);
    text = `${before}${begin}\n\n${content}\n\n${rest.slice(at)}`;
  }
  return text;
}
