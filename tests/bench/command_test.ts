/** The bench as a command: its exit codes, and what it leaves behind. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bench } from "../../bench/command.ts";
import { parseResult } from "../../bench/report/read.ts";

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const filesOf = (folder: string) => Array.from(Deno.readDirSync(folder), ({ name }) => name);

Deno.test("bench: bad input is code 2, one line, and nothing written", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(join(folder, "file"), "");
    const cases: [string[], RegExp][] = [
      [["--fast"], /--fast is unknown/],
      [["codec", "--json", join(folder, "missing", "a.json")], /missing.a\.json cannot be written/],
      [["codec", "--json", join(folder, "file", "a.json")], /cannot be written/],
      [["codec", "--json", folder], /cannot be written: it is a folder/],
      [["--profile", folder], /cannot be written: it is a folder/],
      [["--variants", join(folder, "missing")], /--variants .*missing: ENOENT/],
      [["--variants", join(folder, "file")], /--variants: no JSON/],
    ];
    for (const [args, message] of cases) {
      const lines: string[] = [];
      const code = await bench(args, { complain: (line) => lines.push(line) });
      assert.equal(code, 2, args.join(" "));
      assert.equal(lines.length, 1);
      assert.match(lines[0], /^bench: [^\n]+$/);
      assert.match(lines[0], message);
      assert.deepEqual(filesOf(folder), ["file"]);
    }
  }));

Deno.test("bench: where there is no GPU, nothing measured is code 2, and nothing is written", () =>
  inFolder(async (folder) => {
    const main = fileURLToPath(new URL("../../bench/main.ts", import.meta.url));
    const args = ["run", "-A", "--no-check", main, "gpu", "--json", join(folder, "a.json")];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args,
      env: {
        VK_ICD_FILENAMES: "/nonexistent.json",
        DENO_WEBGPU_BACKEND: "vulkan",
        XDG_RUNTIME_DIR: "/tmp",
        KVASIR_GPU: "",
        NO_COLOR: "1",
      },
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assert.match(text(stdout), /^GPU: left out, [^\n]+\n$/);
    assert.match(text(stderr), /^bench: nothing could be measured here[^\n]*\n$/m);
    assert.equal(code, 2);
    assert.deepEqual(filesOf(folder), []);
  }));

Deno.test("bench: lines of the CPU backend are in the result, which the report reads", () =>
  inFolder(async (folder) => {
    const path = join(folder, "a.json");
    assert.equal(await bench(["cpu", "--quick", "--no-peers", "--json", path]), 0);
    assert.deepEqual(filesOf(folder), ["a.json"]);
    const { lines, limits } = parseResult(await Deno.readTextFile(path), "a.json");
    assert.equal(limits, null);
    assert.deepEqual([...new Set(lines.map(({ family }) => family))], [
      "cpu decode",
      "cpu prefill",
    ]);
    const prefill = lines.filter(({ family, dtype }) =>
      family === "cpu prefill" && dtype === "float8_e4m3fn"
    );
    assert.ok(prefill.length > 0);
    for (const { shape, time, error } of prefill) {
      assert.equal(shape!.qoLen, 512);
      // Microseconds: no machine does a GFLOP of this in one thread in a millisecond.
      assert.ok(time.median > 1000 && time.raw.length > 1);
      assert.ok(error! < 1e-3);
    }
  }));
