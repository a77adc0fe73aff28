/** Examples run as they are copied: without any permission. */

import assert from "node:assert/strict";

/** What an example prints. */
async function run(file: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", file],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test("examples/prefill.ts runs to its end", async () => {
  const text = await run("examples/prefill.ts");
  const [, lse] = /^prefill \[ 2, 80, 24, 128 \] lse of the last query (-?[\d.]+)$/m.exec(text)!;
  // 80 keys of small logits: log2 of a little more than 80.
  assert.ok(Number(lse) > 6 && Number(lse) < 7, text);
  assert.match(text, /^decode {2}\[ 2, 24, 128 \]/m);
});

Deno.test("examples/generate.ts: an FP8 cache of half the size, and the same first tokens", async () => {
  const text = await run("examples/generate.ts");
  const sizeOf = (dtype: string) => Number(new RegExp(`${dtype}: (\\d+) KiB`).exec(text)![1]);
  assert.equal(2 * sizeOf("float8_e4m3fn"), sizeOf("float16"));
  const [, same, all] = /^the first (\d+) tokens of (\d+) are the same$/m.exec(text)!;
  assert.ok(Number(all) === 48 && Number(same) >= 8, text);
  const [, first] = /^tokens ([\d ]+) \.\.\.$/m.exec(text)!;
  assert.ok(new Set(first.split(" ")).size > 4, `no text of one letter: ${first}`);
});
