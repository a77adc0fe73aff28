// Makes the committed modules of src/generated/ from wasm/ and shaders/, or checks that they are what the sources give.
//
//   deno run -A tools/build.ts             builds everything   (the wasm toolchain: tools/wasm_toolchain.sh)
//   deno run -A tools/build.ts --no-wasm   builds the shaders only
//   deno run -A tools/build.ts --check     writes nothing; exits with 1 if something differs
//
// They are modules, not assets, because text and wasm imports do not work on every runtime and registry.

import * as esbuild from "esbuild";
import process from "node:process";

const root = new URL("../", import.meta.url);
const path = (relative: string) => decodeURIComponent(new URL(relative, root).pathname);
const generated = (name: string) => path(`src/generated/${name}`);

// Relaxed SIMD is not among them: it was too little faster to ship a second module (bench/notes/cpu.md).
const targetFeatures = "+simd128";

const wasmOptFlags = [
  "-O3",
  // The kernels stay functions of their own: V8 keeps their sums in registers there, and spills them in a large one.
  "--one-caller-inline-max-function-size=40",
  // The lowest KiB is the far end of the stack, so constants can move from address arithmetic into loads.
  "--low-memory-unused",
  "--optimize-added-constants-propagate",
  "-O3",
  "--enable-simd",
  "--enable-bulk-memory",
  "--enable-bulk-memory-opt",
  "--enable-nontrapping-float-to-int",
  "--enable-sign-ext",
  "--enable-mutable-globals",
  "--enable-multivalue",
  "--enable-reference-types",
  "--strip-debug",
  "--strip-producers",
];

/** What decides the module's bytes besides this file: recorded beside them. */
interface Toolchain {
  rustc: string;
  "wasm-bindgen": string;
  "wasm-pack": string;
  "wasm-opt": string;
}
const recordName = "wasm_toolchain.json";
const advice = 'the wasm toolchain is missing: eval "$(bash tools/wasm_toolchain.sh)"';

/** Generated files by name. */
type Files = Map<string, string>;

function fail(why: string): never {
  console.error(`build: ${why}`);
  process.exit(1);
}

async function run(command: string, args: string[], env: Record<string, string> = {}) {
  const child = new Deno.Command(command, {
    args,
    env,
    cwd: path("wasm/"),
    stdout: "piped",
    stderr: "piped",
  });
  const { success, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (!success) fail(`${command} ${args.join(" ")} failed\n${text(stdout)}${text(stderr)}`);
  return text(stdout).trim();
}

async function toolchainAtHand(): Promise<Toolchain | undefined> {
  const version = async (program: string) => {
    const { success, stdout } = await new Deno.Command(program, {
      args: ["--version"],
      stderr: "null",
    }).output();
    if (!success) throw new Deno.errors.NotFound(program);
    return new TextDecoder().decode(stdout).trim();
  };
  try {
    const libraries = ["--print", "target-libdir", "--target", "wasm32-unknown-unknown"];
    await Deno.stat(await run("rustc", libraries));
    return {
      rustc: await version("rustc"),
      "wasm-bindgen": await version("wasm-bindgen"),
      "wasm-pack": await version("wasm-pack"),
      "wasm-opt": await version("wasm-opt"),
    };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The files below a folder, sorted, relative to it. */
async function filesBelow(folder: string, extension: string, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(`${folder}/${prefix}`)) {
    const name = prefix + entry.name;
    if (entry.isDirectory) found.push(...await filesBelow(folder, extension, `${name}/`));
    else if (name.endsWith(extension)) found.push(name);
  }
  return found.sort();
}

/** SHA-256 over the names and contents of what the module is built from. */
async function hashOfSources(): Promise<string> {
  const names = [
    "Cargo.lock",
    "Cargo.toml",
    ...(await filesBelow(path("wasm/src"), ".rs")).map((n) => `src/${n}`),
  ];
  const parts: Uint8Array[] = [];
  for (const name of names) {
    const content = await Deno.readFile(path(`wasm/${name}`));
    parts.push(new TextEncoder().encode(`${name} ${content.length}\n`), content);
  }
  const digest = await crypto.subtle.digest(
    "SHA-256",
    await new Blob(parts as BlobPart[]).arrayBuffer(),
  );
  return new Uint8Array(digest).toHex();
}

/** Comments stay in the sources: a linked shader has none, and users need not load them. */
const plainShaders: esbuild.Plugin = {
  name: "plain shaders",
  setup({ onLoad }) {
    onLoad({ filter: /\.wgsl$/ }, async ({ path }) => {
      const text = await Deno.readTextFile(path);
      const contents = text.replace(/\s*\/\/[^\n]*/g, "").replace(/\n{2,}/g, "\n").trimStart();
      return { contents, loader: "text" };
    });
  },
};

/** Bundles a module given as text, whose imports are relative to `folder`. */
async function bundle(
  contents: string,
  folder: string,
  loader: Record<string, esbuild.Loader>,
): Promise<string> {
  const { outputFiles } = await esbuild.build({
    stdin: { contents, resolveDir: folder, sourcefile: "module.js" },
    absWorkingDir: folder,
    bundle: true,
    charset: "utf8",
    format: "esm",
    loader,
    plugins: [plainShaders],
    platform: "neutral",
    target: "es2022",
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0].text;
}

/** A module and its declarations, as the registry wants them. */
function addModule(files: Files, name: string, code: string, declarations: string) {
  const notice = "// generated by deno task build; do not edit\n";
  files.set(`${name}.js`, `/* @ts-self-types="./${name}.d.ts" */\n${notice}${code}`);
  files.set(`${name}.d.ts`, notice + declarations);
}

async function addShaders(files: Files) {
  const folder = path("shaders");
  const names = await filesBelow(folder, ".wgsl");
  const imports = names.map((name, i) => `import s${i} from "./${name}";\n`).join("");
  const entries = names.map((name, i) =>
    `  ${JSON.stringify(name.replace(/\.wgsl$/, ""))}: s${i},\n`
  ).join("");
  const code = await bundle(`${imports}export const shaders = {\n${entries}};\n`, folder, {});
  addModule(
    files,
    "shaders",
    code,
    "/** The WGSL modules, by their path below shaders/ without the extension. */\n" +
      "export declare const shaders: Readonly<Record<string, string>>;\n",
  );
}

/** Keeps this machine's folders out of the panic messages, so that every machine builds the same bytes. */
async function remappedPaths(): Promise<string[]> {
  const folders = [[await run("rustc", ["--print", "sysroot"]), "/rust"], [path("wasm"), "/wasm"]];
  // Cargo names a folder of crates by where it got them, which may be a mirror.
  await run("cargo", ["fetch", "--locked"]);
  const crates = `${process.env.CARGO_HOME ?? `${process.env.HOME}/.cargo`}/registry/src`;
  for await (const { name } of Deno.readDir(crates)) folders.push([`${crates}/${name}`, "/crates"]);
  return folders.map(([from, to]) => `--remap-path-prefix=${from}=${to}`);
}

async function buildWasm(): Promise<string> {
  const flags = [`-Ctarget-feature=${targetFeatures}`, ...await remappedPaths()];
  const folder = path(".build/wasm");
  await run("wasm-pack", [
    ...["build", ".", "--release", "--target", "web", "--out-dir", `${folder}/pkg`],
    ...["--no-typescript", "--no-pack", "--", "--locked"],
  ], { CARGO_ENCODED_RUSTFLAGS: flags.join("\x1f"), CARGO_TARGET_DIR: `${folder}/target` });
  const module = `${folder}/kvasir.wasm`;
  await run("wasm-opt", [...wasmOptFlags, `${folder}/pkg/kvasir_wasm_bg.wasm`, "-o", module]);
  const { length } = WebAssembly.Module.imports(
    new WebAssembly.Module(await Deno.readFile(module)),
  );
  if (length > 0) fail(`the module has ${length} imports, and should have none`);
  return folder;
}

async function addWasm(files: Files, toolchain: Toolchain) {
  const folder = await buildWasm();
  const code = await bundle(
    `import base64 from "./kvasir.wasm";
    export function bytes() {
      const binary = atob(base64);
      const bytes = new Uint8Array(binary.length);
      for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
      return bytes;
    }`,
    folder,
    { ".wasm": "base64" },
  );
  addModule(
    files,
    "wasm",
    code,
    `/** The WebAssembly module, built with ${targetFeatures}. */\nexport declare function bytes(): Uint8Array<ArrayBuffer>;\n`,
  );
  files.set(
    recordName,
    JSON.stringify({ ...toolchain, sources: await hashOfSources() }, null, 2) + "\n",
  );
}

async function committed(name: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(generated(name));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function write(files: Files) {
  await Deno.mkdir(generated("."), { recursive: true });
  for (const [name, content] of files) {
    if (content === await committed(name)) continue;
    // Whoever reads meanwhile sees the old file or the new one.
    await Deno.writeTextFile(generated(`.${name}.new`), content);
    await Deno.rename(generated(`.${name}.new`), generated(name));
    console.log(`build: src/generated/${name} (${content.length} bytes)`);
  }
}

async function compare(files: Files) {
  for (const [name, content] of files) {
    if (content !== await committed(name)) {
      fail(
        `src/generated/${name} is not what its sources give: run deno task build and commit the result`,
      );
    }
  }
}

async function checkWasm(files: Files) {
  const record = await committed(recordName);
  if (record === undefined) fail(`src/generated/${recordName} is missing: run deno task build`);
  const { sources, ...recorded } = JSON.parse(record) as Toolchain & { sources: string };
  if (sources !== await hashOfSources()) {
    fail(
      "wasm/ was edited, and the modules in src/generated/ are older: run deno task build and commit the result",
    );
  }
  const toolchain = await toolchainAtHand();
  if (!toolchain) {
    console.log(
      `build: wasm/ is the source that was recorded; it was not rebuilt, because ${advice}`,
    );
  } else if (JSON.stringify(toolchain) === JSON.stringify(recorded)) {
    await addWasm(files, toolchain);
  } else {
    await buildWasm();
    await run("cargo", ["test", "--locked"]);
    console.log(
      "build: wasm/ builds and its tests pass; its bytes were not compared, because the toolchain is another: " +
        `${JSON.stringify(toolchain)}, recorded ${JSON.stringify(recorded)}`,
    );
  }
}

const options = new Set(process.argv.slice(2));
for (const option of options) {
  if (option !== "--check" && option !== "--no-wasm") fail(`unknown option ${option}`);
}
const withWasm = !options.has("--no-wasm");
const files: Files = new Map();
try {
  await addShaders(files);
  if (options.has("--check")) {
    if (withWasm) await checkWasm(files);
    await compare(files);
    console.log(`build: ${[...files.keys()].join(", ")} are what their sources give`);
  } else {
    if (withWasm) await addWasm(files, await toolchainAtHand() ?? fail(advice));
    await write(files);
  }
} finally {
  await esbuild.stop();
}
