/**
 * The caller's WGSL in a kernel: put in place of the functions of shaders/prefill/variant.wgsl after
 * linking, so that the compiler's complaints can be told in lines of the caller's text. Pure.
 *
 * @module
 */

import type { AttentionVariant } from "../attention_problem.ts";
import { ShaderError } from "../errors.ts";

/** A text of the caller's in a kernel. */
export interface CallerCode {
  /** Kernels of the same name with the same key are the same. */
  readonly key: string;
  /** Puts the text into the linked kernel. */
  insert(code: string): string;
  /** The caller's error, if a complaint about a line of `code` is about the text; else null. */
  explain(code: string, line: number, message: string): ShaderError | null;
}

const NAMES = ["logitsTransform", "logitsMask"] as const;
const STUBS = { logitsTransform: "caller_transform", logitsMask: "caller_mask" } as const;
const TYPES = { logitsTransform: "f32", logitsMask: "bool" } as const;
/** The line before each text. */
const markOf = (name: string) => `// options.${name}:`;

/** The code of a variant. */
export function callerCode(variant: AttentionVariant): CallerCode {
  const members = variant.params.map(([name]) => name);
  return {
    key: JSON.stringify([variant.logitsTransform, variant.logitsMask, members]),
    insert: (code) =>
      NAMES.reduce((all, name) => replaceStub(all, name, variant[name]), code) +
      structOf(members),
    explain: (code, line, message) => explain(code, line, message, variant),
  };
}

/** Takes a stub out and puts the text at the end, under the stub's name and with its parameters. */
function replaceStub(code: string, name: typeof NAMES[number], text: string | null): string {
  if (text === null) return code;
  const stub = new RegExp(
    `fn\\s+(\\w*${STUBS[name]})\\s*\\(([^)]*)\\)\\s*->\\s*\\w+\\s*\\{[^}]*\\}`,
  );
  const found = stub.exec(code);
  if (!found) throw new ReferenceError(`no ${STUBS[name]} in the kernel`);
  const head = `fn ${found[1]}(${found[2].replace(/\s+/g, " ")}) -> ${TYPES[name]} {`;
  return `${code.replace(found[0], "")}\n${head} let params = caller_params();\n` +
    `${markOf(name)}\n${text}\n}\n`;
}

/** `params` of the texts; a struct of WGSL has a member at least. */
function structOf(members: readonly string[]): string {
  const names = members.length > 0 ? members : ["none_given"];
  const fields = names.map((name) => `${name}: f32`).join(", ");
  const values = names.map((_, i) => members.length > 0 ? `variant_number(${i}u)` : "0.0");
  return `\nstruct CallerParams { ${fields} }\n` +
    `fn caller_params() -> CallerParams { return CallerParams(${values.join(", ")}); }\n`;
}

function explain(
  code: string,
  line: number,
  message: string,
  variant: AttentionVariant,
): ShaderError | null {
  const lines = code.split("\n");
  for (const name of NAMES) {
    const text = variant[name];
    if (text === null) continue;
    const first = lines.indexOf(markOf(name)) + 1; // the text's line 1 is this line, counted from 0
    const last = first + text.split("\n").length; // and its brace
    // naga gives the function's first line for what is wrong with the whole.
    if (line - 1 < first - 2 || line - 1 > last) continue;
    const own = Math.min(Math.max(1, line - first), last - first);
    return new ShaderError(`options.${name}`, {
      got: `line ${own} (${lines[first + own - 1].trim()}): ${shorten(message)}`,
      expected: `the body of a WGSL function that gives ${TYPES[name]}`,
      hint: "It sees batch, query, key, head" +
        (name === "logitsTransform" ? ", logit" : "") + " and params.",
    });
  }
  return null;
}

/** The compiler's words without its picture of the kernel. */
function shorten(message: string): string {
  const lines = message.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  const words = lines.filter((line) => /^(Shader|error|=)/.test(line));
  return (words.length > 0 ? words : lines.slice(0, 1)).join(" ")
    .replace(/^Shader '[^']*' /, "").replace(/^Shader /, "");
}
