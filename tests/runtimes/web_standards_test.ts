/**
 * The library keeps to web standards, so that browsers, Node and Bun can run it: its sources name
 * neither `Deno` nor `node:` nor what some of these runtimes lack.
 */

import assert from "node:assert/strict";

const ROOT = new URL("../../", import.meta.url);

/** What may not be named, and why. */
const FORBIDDEN: readonly (readonly [pattern: RegExp, why: string])[] = [
  [/\bDeno\s*[.?\[]|["'`]Deno["'`]/, "only Deno has it"],
  [/\bBun\s*\./, "only Bun has it"],
  [/["'`]node:/, "browsers have no node: modules"],
  [/\bprocess\s*[.?\[]|\brequire\s*\(|\bBuffer\s*\./, "only Node has it"],
  [/\bFloat16Array\b|\bf16round\b|\bsetFloat16\b|\bgetFloat16\b/, "Node 20 lacks it"],
  [/\bfromBase64\b|\bfromHex\b/, "Node 20 lacks it"],
  [/from\s+["'`](https?:|jsr:|npm:)/, "specifiers come from the import map"],
  [/\bwith\s*\{\s*type\s*:/, "JSR and Node refuse import attributes other than JSON's"],
  [
    /\bfetch\s*\(|\blocalStorage\b|\bwindow\s*\./,
    "the library touches nothing but WebGPU and WASM",
  ],
];

/** Packages that the published module may import. */
const DEPENDENCIES = ["wesl"];

/** The sources of the published module: mod.ts and all below src/. */
async function sources(): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  const visit = async (folder: URL) => {
    for await (const entry of Deno.readDir(folder)) {
      const url = new URL(entry.name + (entry.isDirectory ? "/" : ""), folder);
      if (entry.isDirectory) await visit(url);
      else if (/\.[cm]?[jt]s$/.test(entry.name)) found.set(url.href, await Deno.readTextFile(url));
    }
  };
  await visit(new URL("src/", ROOT));
  const mod = new URL("mod.ts", ROOT);
  return found.set(mod.href, await Deno.readTextFile(mod));
}

/** Prose may name anything. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}

Deno.test("the library's sources keep to web standards", async () => {
  const files = await sources();
  assert.ok(files.size > 10, "the sources were found");
  for (const [href, text] of files) {
    const code = withoutComments(text);
    for (const [pattern, why] of FORBIDDEN) {
      const match = code.match(pattern);
      assert.equal(match, null, `${href} names ${match?.[0]}: ${why}`);
    }
  }
});

Deno.test("the library imports its own files and its dependencies only", async () => {
  for (const [href, text] of await sources()) {
    const imports = withoutComments(text).matchAll(
      /(?:\bfrom|\bimport)\s*\(?\s*["'`]([^"'`]+)["'`]/g,
    );
    for (const [, specifier] of imports) {
      if (DEPENDENCIES.includes(specifier)) continue;
      assert.match(specifier, /^\.\.?\//, `${href} imports ${specifier}`);
      const target = new URL(specifier, href).href;
      assert.ok(target.startsWith(new URL("src/", ROOT).href), `${href} imports ${specifier}`);
    }
  }
});

Deno.test("the WASM module imports nothing", async () => {
  const { bytes } = await import("../../src/generated/wasm.js");
  assert.deepEqual(WebAssembly.Module.imports(new WebAssembly.Module(bytes())), []);
});
