/**
 * Writes the files of a report so that none is ever seen half-written.
 *
 * @module
 */

import { join } from "node:path";
import { ReportError } from "./read.ts";

/**
 * Writes files into a folder, each under a temporary name first; only once all are there are they
 * renamed. A null removes what an earlier report left under that name.
 */
export async function writeAll(
  folder: string,
  files: ReadonlyMap<string, string | null>,
): Promise<void> {
  const temporary = (name: string) => join(folder, `.${name}.${Deno.pid}.tmp`);
  const written = [...files].filter((file): file is [string, string] => file[1] !== null);
  try {
    await Deno.mkdir(folder, { recursive: true });
    for (const [name, text] of written) await Deno.writeTextFile(temporary(name), text);
    for (const [name] of written) await Deno.rename(temporary(name), join(folder, name));
    for (const [name, text] of files) {
      if (text === null) await Deno.remove(join(folder, name)).catch(unlessMissing);
    }
  } catch (error) {
    for (const [name] of written) await Deno.remove(temporary(name)).catch(() => {});
    throw new ReportError(`nothing can be written into ${folder}: ${(error as Error).message}`);
  }
}

function unlessMissing(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
