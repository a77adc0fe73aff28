// Breaks the kernels and their planning on purpose, one place at a time, and looks whether a test fails.
//
//   deno task mutants [TEXT]    runs the mutants whose name holds TEXT; exits with 1 if one survives
//
// Each mutant is an edit of a copy of the tree; the tests that should catch it run there. Takes about
// 20 minutes on 2 cores, so it is no part of `deno task ok`.

import { APPEND_AND_QUANTIZE } from "./mutants/append.ts";
import { DECODE_KERNEL } from "./mutants/decode.ts";
import { FP8 } from "./mutants/fp8.ts";
import type { Mutant } from "./mutants/mutant.ts";
import { PAGED_ATTENTION } from "./mutants/paged.ts";
import { PAGES } from "./mutants/pages.ts";
import { PLANNED_CALLS } from "./mutants/planned.ts";
import { PLANNING } from "./mutants/planning.ts";
import { PREFILL_KERNEL } from "./mutants/prefill.ts";
import { TOKEN_SCALES } from "./mutants/scales.ts";

const [wanted = ""] = Deno.args;
const mutants = [
  ...DECODE_KERNEL,
  ...PREFILL_KERNEL,
  ...APPEND_AND_QUANTIZE,
  ...PLANNING,
  ...PAGES,
  ...PAGED_ATTENTION,
  ...TOKEN_SCALES,
  ...FP8,
  ...PLANNED_CALLS,
].filter(({ name }) => name.includes(wanted));
const root = new URL("..", import.meta.url).pathname;

async function run(cwd: string, command: string, args: readonly string[]): Promise<boolean> {
  const { success } = await new Deno.Command(command, {
    args: [...args],
    cwd,
    stdout: "null",
    stderr: "null",
    env: {
      XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp",
      REQUIRE_GPU: "1",
      // As deno task test has it: a crash at the end is no test that failed.
      DENO_WEBGPU_BACKEND: "vulkan,metal,dx12",
    },
  }).output();
  return success;
}

/** Whether the tests notice. */
async function isCaught(copy: string, { file, from, to, tests, filter }: Mutant): Promise<boolean> {
  const path = `${copy}/${file}`;
  const text = await Deno.readTextFile(path);
  if (text.split(from).length < 2) throw new Error(`${file} has no ${JSON.stringify(from)}`);
  await Deno.writeTextFile(path, text.replace(from, to));
  try {
    const deno = Deno.execPath();
    if (file.startsWith("shaders/")) {
      await run(copy, deno, ["run", "-A", "tools/build.ts", "--no-wasm"]);
    }
    const filters = filter ? ["--filter", filter] : [];
    return !await run(copy, deno, ["test", "-A", "--no-check", ...filters, ...tests]);
  } finally {
    await Deno.writeTextFile(path, text);
    if (file.startsWith("shaders/")) {
      await run(copy, Deno.execPath(), ["run", "-A", "tools/build.ts", "--no-wasm"]);
    }
  }
}

// An edit whose text has changed would be found late.
let isStale = false;
for (const { name, file, from } of mutants) {
  if ((await Deno.readTextFile(new URL(`../${file}`, import.meta.url))).includes(from)) continue;
  console.log(`STALE    ${name}: ${file} has no ${JSON.stringify(from)}`);
  isStale = true;
}
if (isStale) Deno.exit(1);

const queue = [...mutants];
const survivors: string[] = [];
await Promise.all([0, 1].map(async () => {
  const copy = await Deno.makeTempDir();
  await run(root, "sh", ["-c", `git ls-files -z | xargs -0 cp --parents -t ${copy}`]);
  for (let next = queue.shift(); next; next = queue.shift()) {
    const begin = performance.now();
    const caught = await isCaught(copy, next);
    if (!caught) survivors.push(next.name);
    const seconds = ((performance.now() - begin) / 1000).toFixed(0);
    console.log(`${caught ? "caught  " : "SURVIVED"} ${next.name} (${seconds} s)`);
  }
  await Deno.remove(copy, { recursive: true });
}));
console.log(`${mutants.length - survivors.length} of ${mutants.length} caught`);
Deno.exit(survivors.length > 0 ? 1 : 0);
