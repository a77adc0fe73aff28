/**
 * 2^24 floats of random bits, NaN, infinities and subnormals among them, become FP8 on the device as the
 * WASM encoder has them, byte for byte, by each way of rounding that a device may be given.
 */

import assert from "node:assert/strict";
import { type Device, encodeFp8, quantize } from "@kvasir/attention";
import type { KvasirDevice } from "../../src/device.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { onEachBackend } from "../support/device.ts";
import { randomBits } from "../support/values.ts";

const COUNT = 2 ** 24;
const PIECE = 2 ** 21;

/** Checks all pieces in both formats. */
async function checkRandomFloats(device: Device): Promise<void> {
  for (let piece = 0; piece < COUNT / PIECE; piece++) {
    const values = randomBits(PIECE, 1000 + piece);
    using tensor = device.tensor(values, [PIECE], "float32");
    for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
      using result = await quantize(tensor, dtype);
      const got = await result.readBytes();
      const expected = encodeFp8(values, dtype);
      assert.equal(got.length, PIECE);
      const at = got.findIndex((code, i) => code !== expected[i]);
      assert.equal(at, -1, `${dtype}: ${values[at]} gave ${got[at]}, not ${expected[at]}`);
    }
  }
}

// The kernel is the same on both rungs.
onEachBackend("2^24 random floats become FP8", checkRandomFloats, ["wasm", "webgpu"]);

onEachBackend("2^24 random floats become FP8 by integers alone", async (device) => {
  const engine = (device as KvasirDevice).engine as WebGpuBackend;
  const own = engine.rounding;
  const reason = "as the test says";
  engine.rounding = () => Promise.resolve({ byAddition: false, byPacking: false, reason });
  try {
    await checkRandomFloats(device);
  } finally {
    engine.rounding = own;
  }
  const used = device.report.kernels.filter(({ variant }) => variant.endsWith(".integers"));
  assert.equal(used.length, 2);
}, ["webgpu"]);
