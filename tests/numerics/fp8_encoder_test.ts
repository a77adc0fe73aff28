/**
 * The encoders of the device, code by code what the WASM encoder gives, over 2^24 floats of random bits and
 * every exponent: the way by addition, where the device has it, and the way by integers. (quantize_test.ts
 * has FP8's midpoints and halves, output_rounding_test.ts the encoders at the end of attention.)
 *
 * Conversions on a device saturate; without saturation there is the host's encodeFp8 alone, which
 * `deno task fp8:proof` proves.
 */

import assert from "node:assert/strict";
import { type Device, encodeFp8, type Fp8DType, quantize } from "@kvasir/attention";
import type { KvasirDevice } from "../../src/device.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { onEachBackend } from "../support/device.ts";
import { nextFloat32, randomBits } from "../support/values.ts";

const FP8 = ["float8_e4m3fn", "float8_e5m2"] as const;
const COUNT = 2 ** 24;
const CHUNK = 2 ** 22;
/** GPUs may take a float32 below it for 0. */
const LEAST_NORMAL = 2 ** -126;

/** How many of all floats get another code by way of float16; docs/fp8.md. */
const DOUBLY_ROUNDED = { float8_e4m3fn: 1_032_192, float8_e5m2: 1_105_920 } as const;

async function quantized(device: Device, values: Float32Array, dtype: Fp8DType) {
  using tensor = device.tensor(values, [values.length], "float32");
  using codes = await quantize(tensor, dtype);
  return await codes.readBytes();
}

function assertCodes(
  label: string,
  values: Float32Array,
  got: Uint8Array,
  expected: Uint8Array,
): void {
  assert.equal(got.length, expected.length, label);
  for (let i = 0; i < got.length; i++) {
    if (got[i] === expected[i]) continue;
    // A flushed number may lose its sign.
    if (Math.abs(values[i]) < LEAST_NORMAL && (got[i] & 0x7f) === 0) continue;
    const [code, right] = [got[i], expected[i]].map((x) => `0x${x.toString(16)}`);
    assert.fail(`${label}: ${values[i]} gave ${code}, not ${right}`);
  }
}

/** Runs `test` by each way of rounding that a device has. */
async function byEachWay(device: Device, test: (way: string) => Promise<void>): Promise<void> {
  await test(device.backend === "wasm" ? "WASM" : "the device's own way");
  if (device.backend === "wasm") return;
  const backend = (device as KvasirDevice).engine as WebGpuBackend;
  const reason = "the test says so";
  backend.rounding = () => Promise.resolve({ byAddition: false, byPacking: false, reason });
  try {
    await test("integers");
  } finally {
    Reflect.deleteProperty(backend, "rounding");
  }
}

onEachBackend("quantize: 2^24 floats of random bits become FP8 as WASM has it", async (device) => {
  const chunks = Array.from({ length: COUNT / CHUNK }, (_, i) => randomBits(CHUNK, 100 + i));
  for (const dtype of FP8) {
    let doublyRounded = 0;
    for (const values of chunks) {
      const expected = encodeFp8(values, dtype);
      await byEachWay(device, async (way) => {
        assertCodes(`${dtype}, ${way}`, values, await quantized(device, values, dtype), expected);
      });
      const halves = new Uint16Array(new Float16Array(values).buffer);
      const byHalves = encodeFp8(halves, dtype, { inputDtype: "float16" });
      doublyRounded += expected.reduce((sum, code, i) => sum + Number(code !== byHalves[i]), 0);
    }
    // The sample has its share of the floats that tell one rounding from two.
    const share = DOUBLY_ROUNDED[dtype] * COUNT / 2 ** 32;
    assert.ok(Math.abs(doublyRounded / share - 1) < 0.1, `${doublyRounded}, not about ${share}`);
  }
});

onEachBackend("quantize: every exponent, and the floats beside it", async (device) => {
  const values: number[] = [];
  for (let exponent = -126; exponent < 128; exponent++) {
    for (const factor of [1, 1.5]) {
      const x = factor * 2 ** exponent;
      for (const y of [x, nextFloat32(x), nextFloat32(x, -1)]) values.push(y, -y);
    }
  }
  // 0x43d7ffff gives 0x7d, and 0x7e by way of float16.
  const inputs = Float32Array.from([...values, nextFloat32(432, -1), NaN, Infinity, -Infinity]);
  for (const dtype of FP8) {
    const expected = encodeFp8(inputs, dtype);
    if (dtype === "float8_e4m3fn") assert.equal(expected[values.length], 0x7d);
    await byEachWay(device, async (way) => {
      assertCodes(`${dtype}, ${way}`, inputs, await quantized(device, inputs, dtype), expected);
    });
  }
});
