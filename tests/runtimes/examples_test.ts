/** Examples run as they are copied: without any permission. */

import assert from "node:assert/strict";

Deno.test("examples/prefill.ts runs to its end", async () => {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", "examples/prefill.ts"],
  }).output();
  const text = new TextDecoder().decode(stdout);
  assert.ok(success, new TextDecoder().decode(stderr));
  const [, lse] = /^prefill \[ 2, 80, 24, 128 \] lse of the last query (-?[\d.]+)$/m.exec(text)!;
  // 80 keys of small logits: log2 of a little more than 80.
  assert.ok(Number(lse) > 6 && Number(lse) < 7, text);
  assert.match(text, /^decode {2}\[ 2, 24, 128 \]/m);
});
