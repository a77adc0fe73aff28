/** The peers that run beside us: PyTorch's output is read, and what is not installed left out. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { flashInferLines } from "../../bench/peers/flashinfer.ts";
import { benchTorch, parseTorch } from "../../bench/peers/torch.ts";
import { parseResult } from "../../bench/report/read.ts";
import { sample } from "./report_sample.ts";

const OUTPUT = `torch 2.8.0+cu128 NVIDIA H200
prefill flash (1, 32, 8, 128, 4096) 570.3us 241.0 TFLOP/s
prefill cudnn (1, 32, 8, 128, 4096) 324.9us 423.0 TFLOP/s
decode flash (64, 32, 8, 128, 4096) 419.0us 2563 GB/s
decode cudnn (64, 32, 8, 128, 4096) ERR No available kernel
decode efficient (64, 32, 8, 128, 4096) 900.0us 1 GB/s
decode cudnn (1, 32, 8, 128, 8192) 31.1us 1079 GB/s
no flashinfer No module named 'flashinfer'
`;

Deno.test("parseTorch() makes lines that agree with the rates beside them", () => {
  const { lines, leftOut } = parseTorch(OUTPUT);
  assert.deepEqual(
    lines.map(({ family, library, time, kernel }) => [family, library, time.median, kernel]),
    [
      ["prefill", "PyTorch FlashAttention-2", 570.3],
      ["prefill", "PyTorch cuDNN", 324.9],
      ["decode", "PyTorch FlashAttention-2", 419],
      ["decode", "PyTorch cuDNN", 31.1],
    ].map((line) => [...line, "scaled_dot_product_attention, torch 2.8.0+cu128"]),
  );
  assert.deepEqual(leftOut, [
    "PyTorch, left out: decode cudnn (64, 32, 8, 128, 4096) ERR No available kernel",
  ]);
  const [prefill, , decode] = lines;
  assert.deepEqual(prefill.shape, {
    batch: 1,
    qoLen: 4096,
    kvLen: 4096,
    numQoHeads: 32,
    numKvHeads: 8,
    headDim: 128,
  });
  assert.equal(Math.round(prefill.flops / prefill.time.median / 1e6), 241);
  assert.equal(decode.shape!.qoLen, 1);
  assert.equal(decode.shape!.batch, 64);
  // The script counts no q and out, which are 1/250 of the cache.
  assert.ok(Math.abs(decode.bytes / decode.time.median / 1e3 / 2563 - 1) < 0.01);
  assert.deepEqual(
    parseResult(JSON.stringify({ ...sample(), lines }), "a.json").lines,
    lines,
  );
});

/** Runs `work` with a program that stands in for python. */
async function withPython(script: string, work: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  const log = console.log;
  try {
    const path = join(folder, "python");
    await Deno.writeTextFile(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    await work(path);
  } finally {
    console.log = log;
    await Deno.remove(folder, { recursive: true });
  }
}

async function linesOf(python: string) {
  const said: string[] = [];
  const { log } = console;
  console.log = (line) => said.push(line);
  try {
    return { lines: await benchTorch(python), said };
  } finally {
    console.log = log;
  }
}

Deno.test("benchTorch() gives python its script, and reads what that prints", () =>
  withPython(`grep -q scaled_dot_product_attention && cat <<'END'\n${OUTPUT}END`, async (path) => {
    const { lines, said } = await linesOf(path);
    assert.equal(lines.length, 4);
    assert.equal(said.length, 1);
  }));

Deno.test("benchTorch() is left out with one line where it cannot run", async () => {
  const failing =
    `cat >/dev/null; echo Traceback >&2; echo "ModuleNotFoundError: torch" >&2; exit 1`;
  await withPython(failing, async (path) => {
    const { lines, said } = await linesOf(path);
    assert.deepEqual(lines, []);
    assert.deepEqual(said, ["  PyTorch is left out: ModuleNotFoundError: torch"]);
  });
  const { lines, said } = await linesOf("/nonexistent/python3");
  assert.deepEqual(lines, []);
  assert.equal(said.length, 1);
  assert.match(said[0], /^ {2}PyTorch is left out: [^\n]+$/);
});

Deno.test("flashInferLines() are recorded figures, with prefill in time", () => {
  const lines = flashInferLines();
  assert.ok(lines.every(({ recorded }) => recorded?.includes("H200")));
  const fa3 = lines.find(({ family, kernel, shape }) =>
    family === "prefill" && kernel === "fa3" && shape!.kvLen === 4096 && shape!.numQoHeads === 32
  )!;
  // 4096 causal tokens of 32 heads are 0.137 TFLOP; at 555 TFLOP/s they take a quarter of a ms.
  assert.ok(Math.abs(fa3.flops / 1.374e11 - 1) < 0.01);
  assert.ok(Math.abs(fa3.time.median - 247.6) < 1);
});
