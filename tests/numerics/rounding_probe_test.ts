/**
 * The self-test of rounding by addition: a device whose adder rounds otherwise goes by integers, with
 * the same bits.
 */

import assert from "node:assert/strict";
import { decodeFp8, dequantize, encodeFp8, openDevice, quantize } from "@kvasir/attention";
import { shaders } from "../../src/generated/shaders.js";
import { hardValues } from "../../src/webgpu/rounding_probe.ts";
import { gpuTest } from "../support/device.ts";
import { store } from "../support/storage.ts";
import { nextFloat32 } from "../support/values.ts";

const FP8 = ["float8_e4m3fn", "float8_e5m2"] as const;

Deno.test("the values of the self-test hold ties of every format, and their neighbours", () => {
  const magnitudes = new Set(Array.from(hardValues(), Math.abs));
  const ties = [
    1.0625,
    1.1875,
    2 ** -10,
    1.5 * 2 ** -9,
    464,
    61440,
    2 ** -17,
    2 ** -25,
    1 + 469 / 2048,
  ];
  for (const tie of ties) {
    for (const x of [tie, nextFloat32(tie), nextFloat32(tie, -1)]) {
      assert.ok(magnitudes.has(x), `${x}`);
    }
  }
});

/** Not deepEqual, which takes minutes to show how long arrays differ. */
function assertEqual(label: string, got: Uint8Array, expected: Uint8Array) {
  assert.equal(got.length, expected.length, label);
  assert.equal(got.findIndex((byte, i) => byte !== expected[i]), -1, label);
}

/** Halves as FP8, and random floats as halves, on a device that is opened for it. */
async function checkRounding(expectedReason: RegExp, modules: RegExp) {
  using device = await openDevice({ backend: "webgpu" });
  const halves = Uint16Array.from({ length: 65536 }, (_, code) => code);
  using tensor = device.tensorFromBytes(new Uint8Array(halves.buffer), [65536], "float16");
  for (const dtype of FP8) {
    using codes = await quantize(tensor, dtype);
    const expected = encodeFp8(halves, dtype, { inputDtype: "float16" });
    assertEqual(dtype, await codes.readBytes(), expected);
  }
  const values = hardValues();
  using floats = device.tensor(values, [values.length], "float32");
  using rounded = await quantize(floats, "float16");
  assertEqual("float16", await rounded.readBytes(), store(values, "float16").bytes);
  const choices = device.report.kernels.filter(({ family }) => family === "quantize");
  assert.equal(choices.length, 3);
  for (const { variant, reason } of choices) {
    assert.match(reason, expectedReason);
    assert.match(variant, modules);
  }
}

gpuTest("additions round as they should here", async () => {
  await checkRounding(/^additions round 4320 hard values/, /\.add/);
});

/** Runs `work` on shaders of which one is changed. */
async function withShader(file: string, from: string, to: string, work: () => Promise<void>) {
  const texts = shaders as Record<string, string>;
  const saved = texts[file];
  texts[file] = saved.replace(from, to);
  assert.notEqual(texts[file], saved);
  try {
    await work();
  } finally {
    texts[file] = saved;
  }
}

gpuTest("a device whose additions round otherwise goes by integers", async () => {
  // As an adder would that rounds toward zero.
  await withShader(
    "formats/addition",
    "+ bitcast<vec4<f32>>(rounder));",
    "+ bitcast<vec4<f32>>(rounder) * 0.9999999);",
    () => checkRounding(/additions get \d+ words of float8_e4m3fn wrong/, /\.integers/),
  );
});

/** All codes of e4m3 as halves, on a device that is opened for it. */
async function checkPacking(modules: RegExp) {
  using device = await openDevice({ backend: "webgpu" });
  const codes = Uint8Array.from({ length: 256 }, (_, code) => code);
  using tensor = device.tensorFromBytes(codes, [256], "float8_e4m3fn");
  using halves = await dequantize(tensor, "float16");
  const expected = store(decodeFp8(codes, "float8_e4m3fn"), "float16").bytes;
  assertEqual("halves", await halves.readBytes(), expected);
  const { variant } = device.report.kernels.find(({ family }) => family === "quantize")!;
  assert.match(variant, modules);
}

gpuTest("e4m3 is packed as halves", () => checkPacking(/\.pack/));

gpuTest("a device that packs otherwise has halves encoded", async () => {
  const packed = "pack2x16float(values.xy)";
  await withShader(
    "formats/f16_pack",
    packed,
    `${packed} + 1u`,
    () => checkPacking(/(?<!\.pack)$/),
  );
});
