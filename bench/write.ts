/**
 * Writes files so that none is ever seen half-written.
 *
 * @module
 */

import { accessSync, constants, statSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { BenchError } from "./bench_error.ts";

/**
 * Writes files into a folder, each under a temporary name first; only once all are there are they
 * renamed. A null removes what an earlier run left under that name.
 */
export async function writeAll(
  folder: string,
  files: ReadonlyMap<string, string | null>,
): Promise<void> {
  const temporary = (name: string) => join(folder, `.${name}.${process.pid}.tmp`);
  const written = [...files].filter((file): file is [string, string] => file[1] !== null);
  try {
    await mkdir(folder, { recursive: true });
    for (const [name, text] of written) await writeFile(temporary(name), text);
    for (const [name] of written) await rename(temporary(name), join(folder, name));
    for (const [name, text] of files) {
      if (text === null) await rm(join(folder, name), { force: true });
    }
  } catch (error) {
    for (const [name] of written) await rm(temporary(name), { force: true }).catch(() => {});
    throw new BenchError(`nothing can be written into ${folder}: ${(error as Error).message}`);
  }
}

/** Writes one file. */
export async function writeWhole(path: string, text: string): Promise<void> {
  await writeAll(dirname(path), new Map([[basename(path), text]]));
}

/** Throws for a path at which no file can be written: better said before minutes of measuring. */
export function checkWritable(path: string): void {
  const folder = dirname(path);
  try {
    if (!statSync(folder).isDirectory()) throw new Error(`${folder} is no folder`);
    accessSync(folder, constants.W_OK);
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw new Error("it is a folder");
  } catch (error) {
    throw new BenchError(`${path} cannot be written: ${(error as Error).message}`);
  }
}
