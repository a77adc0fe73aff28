/** The families of the bench: their problems, and what it does with these on a device. */

import assert from "node:assert/strict";
import { decodeCase } from "../../bench/gpu/decode.ts";
import {
  DECODE_PROBLEMS,
  decodeBytes,
  decodeFlops,
  type DecodeProblem,
  mixedLengths,
  SMALL_DECODE_PROBLEMS,
} from "../../bench/gpu/decode_cases.ts";
import { caseName } from "../../bench/gpu/family.ts";
import { benchGpu } from "../../bench/gpu/main.ts";
import { wallTimes } from "../../bench/gpu/measure.ts";
import { mergeCase } from "../../bench/gpu/merge.ts";
import { openGpu } from "../../bench/gpu/open.ts";
import { prefillCase } from "../../bench/gpu/prefill.ts";
import {
  PREFILL_PROBLEMS,
  prefillFlops,
  prefillShape,
  SMALL_PREFILL_PROBLEMS,
} from "../../bench/gpu/prefill_cases.ts";
import { chromeTrace } from "../../bench/gpu/profile.ts";
import { GpuTimer } from "../../bench/gpu/timing.ts";
import { isForOnnx } from "../../bench/peers/gpu.ts";
import { gpuTest } from "../support/device.ts";

const names = DECODE_PROBLEMS.map((problem) => caseName(decodeCase(problem)));

Deno.test("decode problems have names of their own, every group from 1 to 8, and all dtypes", () => {
  assert.equal(new Set(names).size, names.length);
  for (let group = 1; group <= 8; group++) {
    for (const dtype of ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]) {
      assert.ok(names.includes(`decode 64 x 4096 keys, ${8 * group}/8, ${dtype}`));
    }
  }
  assert.ok(names.includes("decode 64 x 1..8192 keys, 32/8, float8_e5m2"));
});

Deno.test("mixed lengths are the same in every run, and bytes are counted by them", () => {
  const lengths = mixedLengths(64, 8192);
  assert.deepEqual(lengths, mixedLengths(64, 8192));
  assert.ok(lengths.every((n) => Number.isInteger(n) && n >= 1 && n <= 8192));
  const mean = lengths.reduce((a, b) => a + b) / 64;
  assert.ok(mean > 3000 && mean < 5200 && new Set(lengths).size > 50);
  const mixed = DECODE_PROBLEMS.find(({ seqLens, dtype }) => seqLens && dtype === "float16")!;
  const keys = mixed.seqLens!.reduce((a, b) => a + b);
  assert.equal(mixed.shape.kvTokens, keys);
  assert.equal(decodeBytes(mixed), keys * 2 * 8 * 128 * 2 + 2 * 64 * 32 * 128 * 2);
  assert.equal(decodeFlops(mixed), 4 * 32 * 128 * keys);
});

Deno.test("prefill problems have names of their own; operations are counted on visible pairs", () => {
  const names = PREFILL_PROBLEMS.map((problem) => caseName(prefillCase(problem)));
  assert.equal(new Set(names).size, names.length);
  assert.ok(names.includes("prefill 1 x 4096 tokens, 24/8, float16"));
  assert.ok(names.includes("prefill 1 x 16384 tokens, 32/8, window 1023, float16"));
  assert.ok(names.includes("prefill 1 x 4096 tokens, 32/8, D 192 and 128, float16"));
  assert.ok(names.includes("prefill 1 x 4096 tokens, 32/8, D 256, float16"));
  assert.equal(prefillFlops(prefillShape(3, 2, 1)), 4 * 128 * 2 * 6);
  assert.equal(prefillFlops({ ...prefillShape(2, 2, 1), kvLen: 10 }), 4 * 128 * 2 * 19);
  assert.equal(prefillFlops({ ...prefillShape(5, 1, 1), windowLeft: 1 }), 4 * 128 * 9);
  assert.equal(prefillFlops({ ...prefillShape(1, 1, 1, 192), headDimV: 128 }), 2 * 320);
});

Deno.test("onnxruntime-web is given two prompts of prefill, at groups 3 and 4", () => {
  const shapes = PREFILL_PROBLEMS.filter(({ dtype }) => dtype === "float16")
    .map(prefillCase).filter(isForOnnx).map(({ shape: s }) => [s.qoLen, s.numQoHeads]);
  assert.deepEqual(shapes.sort(), [[1024, 24], [1024, 32], [4096, 24], [4096, 32]]);
});

Deno.test("calls that take long are not called often before their wall time is taken", async () => {
  let calls = 0;
  const call = (milliseconds: number) => async () => {
    calls++;
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  };
  assert.equal((await wallTimes(call(0), 5)).length, 5);
  assert.equal(calls, 24 + 5);
  calls = 0;
  const walls = await wallTimes(call(150), 2);
  assert.ok(walls.length === 2 && walls.every((time) => time > 100_000));
  assert.ok(calls <= 1 + 3 + 2, `${calls} calls`);
  calls = 0;
  assert.deepEqual(await wallTimes(call(0), 0), []);
  assert.equal(calls, 0);
});

gpuTest("prefill is checked at both ends and timed", async () => {
  await printed(async () => {
    const result = (await benchGpu(QUIET, () => SMALL_PREFILL_PROBLEMS.map(prefillCase)))!;
    for (const line of result.lines) {
      assert.equal(line.family, "prefill");
      assert.ok(line.error! > 0 && line.error! < 3e-3);
      // Pages are timed on the GPU alone.
      assert.equal(line.wall === undefined, line.shape!.pageSize !== undefined);
    }
    assert.equal(result.lines.length, SMALL_PREFILL_PROBLEMS.length);
    await result.backend.readback.settled(); // a loop of calls reads ahead
    result.backend.destroy();
  });
});

const small = SMALL_DECODE_PROBLEMS.find(({ seqLens, dtype }) => seqLens && dtype === "float16")!;
const QUIET = {
  quick: true,
  filter: "",
  sweep: null,
  variants: null,
  profile: false,
  peers: false,
};

/** What `work` prints. */
async function printed(work: () => Promise<void>): Promise<string[]> {
  const lines: string[] = [];
  const { log } = console;
  console.log = (line) => lines.push(line);
  try {
    await work();
  } finally {
    console.log = log;
  }
  return lines;
}

gpuTest("a result that is not there yet is found to be wrong", async () => {
  const backend = (await openGpu())!;
  const timer = new GpuTimer(backend.device);
  const open = await decodeCase(small).open(backend);
  try {
    await assert.rejects(open.check(), /^Error: request 0 is wrong at \d+: /);
    await timer.once(open.calls);
    assert.ok(await open.check() < 2e-3);
    // Copies differ in k and v alone, and all of them are written to one out.
    const buffers = open.calls.map((call) =>
      call.flatMap(({ resources }) => resources.map(({ buffer }) => buffer))
    );
    assert.ok(buffers.length > 1);
    for (const other of buffers.slice(1)) {
      assert.equal(other.filter((buffer, i) => buffer !== buffers[0][i]).length, 2);
    }
    await open.callAndRead!();
  } finally {
    open.release();
    timer.destroy();
    backend.destroy();
  }
});

gpuTest("merge is checked against float64 and timed, without a public call as yet", async () => {
  const wanted = mergeCase({ rows: 3, states: 5, numHeads: 2, dtype: "float16" });
  await printed(async () => {
    const result = (await benchGpu(QUIET, () => [wanted]))!;
    const [line] = result.lines;
    assert.equal(line.family, "merge");
    assert.ok(line.error! > 0 && line.error! < 1e-2 && line.wall === undefined);
    result.backend.destroy();
  });
  assert.equal(caseName(wanted), "merge 3 x 5 states, 2/2, float16");
});

gpuTest("a shape that the device is too small for is left out with one line", async () => {
  const huge: DecodeProblem = {
    shape: { ...small.shape, batch: 4096, kvLen: 1 << 20, kvTokens: undefined },
    dtype: "float16",
  };
  const cases = [huge, small].map(decodeCase);
  const lines = await printed(async () => {
    const result = (await benchGpu(QUIET, () => cases))!;
    assert.deepEqual(result.lines.map(({ shape }) => shape), [small.shape]);
    const [{ wall, time, error, share }] = result.lines;
    assert.ok(wall!.median > 0 && time.raw.length >= 5 && error! < 2e-3 && share! > 0);
    result.backend.destroy();
  });
  const leftOut = lines.filter((line) => line.includes("left out"));
  assert.equal(leftOut.length, 1);
  assert.match(leftOut[0], /^ {2}decode 4096 x 1048576 keys, 8\/2, float16 +left out: [^\n]+$/);
});

gpuTest("a profile is a Chrome trace of one call's dispatches", async () => {
  let text = "";
  await printed(async () => {
    const result = (await benchGpu({ ...QUIET, profile: true }, () => [decodeCase(small)]))!;
    text = chromeTrace(result.profile, "a device");
    result.backend.destroy();
  });
  const { traceEvents } = JSON.parse(text);
  const [call, ...dispatches] = traceEvents.filter(({ ph }: { ph: string }) => ph === "X");
  assert.equal(call.name, caseName(decodeCase(small)));
  assert.ok(dispatches.length >= 1);
  assert.match(dispatches[0].name, /^decode\./);
  let end = call.ts;
  for (const { ts, dur } of dispatches) {
    assert.ok(dur > 0 && ts >= end);
    end = ts + dur;
  }
  // JSON keeps fractions of a microsecond, not their sums.
  assert.ok(end <= call.ts + call.dur + 1e-6);
});
