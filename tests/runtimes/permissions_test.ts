/** The library needs no permission of Deno: not for WASM, not for WebGPU. */

import assert from "node:assert/strict";
import { adapter } from "../support/device.ts";

const SCRIPT = new URL("./no_permissions.ts", import.meta.url);

Deno.test("the example runs with no permission at all, on both backends", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    // `--cached-only`: that the dependencies are here is this test's business, not the script's.
    args: ["run", "--no-prompt", "--cached-only", SCRIPT.href],
    stdout: "piped",
    stderr: "piped",
  }).output();
  const errors = new TextDecoder().decode(stderr);
  assert.equal(code, 0, `the script failed without permissions:\n${errors}`);
  const { wasm, webgpu, codec } = JSON.parse(new TextDecoder().decode(stdout));
  assert.equal(codec, 2 * 33 * 2 * 64);
  assert.equal(wasm.length, 2 * 4 * 64);
  assert.ok(wasm.every(Number.isFinite));
  if (!adapter || Deno.env.get("KVASIR_GPU") === "dawn") return;
  assert.ok(webgpu, `the script found no adapter, this test did:\n${errors}`);
  wasm.forEach((x: number, i: number) => assert.ok(Math.abs(x - webgpu[i]) < 1e-3));
});
