/**
 * From the shaders' modules to one WGSL text: marked loops unrolled, modules linked by WESL, sizes
 * given as constants.
 *
 * What varies is a module that the kernel imports under a role's name (`package::team`,
 * `package::out_format`); linking puts the chosen file in that role.
 *
 * @module
 */

import { link } from "wesl";
import { shaders } from "../generated/shaders.js";
import { unroll } from "./unroll.ts";

/** What to link. */
export interface LinkRequest {
  /** The file with the entry point, by its path below shaders/, such as `"decode"`. */
  readonly main: string;
  /** Files that are imported by their own names. */
  readonly modules: readonly string[];
  /** Role to file, such as `{ team: "team/subgroups" }`. */
  readonly roles: Readonly<Record<string, string>>;
  /** Name to a file that stands under it with some of its words exchanged: what generics would be. */
  readonly instances?: Readonly<Record<string, Instance>>;
  /** Whole numbers that the shader imports from `constants`. */
  readonly constants: Readonly<Record<string, number>>;
  /** Conditions of `@if`. */
  readonly conditions: Readonly<Record<string, boolean>>;
}

/** A file, and the words in it that are others here: roles that it imports, conditions. */
export interface Instance {
  readonly file: string;
  readonly words: Readonly<Record<string, string>>;
}

/** The linked WGSL of a kernel. */
export async function linkShader(request: LinkRequest): Promise<string> {
  const weslSrc: Record<string, string> = {};
  const add = (name: string, file: string, words: Instance["words"] = {}) => {
    const text = shaders[file];
    if (text === undefined) throw new ReferenceError(`no shader ${file}`);
    const own = text.replace(/\w+/g, (word) => Object.hasOwn(words, word) ? words[word] : word);
    weslSrc[`${name}.wesl`] = unroll(own, request.constants);
  };
  for (const file of request.modules) add(file, file);
  for (const [role, file] of Object.entries(request.roles)) add(role, file);
  for (const [name, { file, words }] of Object.entries(request.instances ?? {})) {
    add(name, file, words);
  }
  add("main", request.main);
  const constants: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.constants)) constants[name] = `${value}u`;
  const linked = await link({
    weslSrc,
    rootModuleName: "main",
    constants,
    conditions: request.conditions,
    keepComments: false,
    sourceMap: false,
  });
  return linked.dest;
}
