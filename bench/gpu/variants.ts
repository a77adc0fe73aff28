/**
 * Variants of the shaders' source for `--variants`, as a kernel's author tries them by the dozen: what
 * a driver makes of a kernel cannot be foretold (bench/notes/prefill.md).
 *
 * A file of them is JSON:
 *
 *     [{ "name": "two steps at once",
 *        "edits": [{ "file": "prefill/product", "from": "e += 1", "to": "e += 2" }],
 *        "tuning": { "unroll": 2 } }]
 *
 * Edits are of the text without comments in src/generated/shaders.js, of each place where `from`
 * stands, one after the other.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { shaders } from "../../src/generated/shaders.js";
import { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { BenchError, firstLine } from "../bench_error.ts";
import type { Tuning } from "./family.ts";

/** Words of a shader, exchanged for others. */
export interface Edit {
  /** By its path below shaders/, without the extension. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** The source in other words, and constants that go with it. */
export interface Variant {
  readonly name: string;
  readonly edits: readonly Edit[];
  readonly tuning: Tuning;
}

/** The source as it is. */
export const AS_IT_IS: Variant = { name: "as it is", edits: [], tuning: {} };

type Shaders = Readonly<Record<string, string>>;

/** Reads a file of variants. */
export async function readVariants(path: string): Promise<Variant[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new BenchError(`--variants ${path}: ${firstLine(error)}`);
  }
  return parseVariants(text);
}

/** The variants of such a file, behind the source as it is, with whose times theirs are compared. */
export function parseVariants(text: string, sources: Shaders = shaders): Variant[] {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (error) {
    throw new BenchError(`--variants: no JSON, ${firstLine(error)}`);
  }
  if (!Array.isArray(list)) throw new BenchError("--variants: expected a list of variants");
  const variants = [AS_IT_IS, ...list.map(variantOf)];
  for (const variant of variants) edited(sources, variant);
  return variants;
}

function variantOf(found: Partial<Variant> | null, place: number): Variant {
  const { name, edits = [], tuning = {} } = found ?? {};
  if (typeof name !== "string" || !Array.isArray(edits)) {
    throw new BenchError(`--variants: number ${place + 1} has no name, or edits that are no list`);
  }
  return { name, edits, tuning };
}

/** The modules that a variant changes. Throws for an edit that would change nothing. */
export function edited(sources: Shaders, { name, edits }: Variant): Shaders {
  const changed: Record<string, string> = {};
  for (const { file, from, to } of edits) {
    const text = changed[file] ?? sources[file];
    if (text === undefined) throw new BenchError(`variant ${name}: there is no shader ${file}`);
    if (!from || from === to || !text.includes(from)) {
      throw new BenchError(`variant ${name}: nothing in ${file} is to change: ${firstLine(from)}`);
    }
    changed[file] = text.replaceAll(from, () => to);
  }
  return changed;
}

/**
 * Has `work` done with the shaders as a variant has them, on a backend that has compiled none yet, and
 * puts them back.
 */
export async function withVariant<T>(
  { device, guard, capabilities, options }: WebGpuBackend,
  variant: Variant,
  work: (backend: WebGpuBackend) => Promise<T>,
): Promise<T> {
  const sources: Record<string, string> = shaders;
  const changed = edited(sources, variant);
  const kept = Object.fromEntries(Object.keys(changed).map((file) => [file, sources[file]]));
  // Its kernels are its own; the device and what was found out about it are shared.
  const backend = new WebGpuBackend(device, guard, capabilities, options);
  Object.assign(sources, changed);
  try {
    return await work(backend);
  } finally {
    Object.assign(sources, kept);
    backend.ropeTables.destroy();
    backend.readback.destroy();
  }
}
