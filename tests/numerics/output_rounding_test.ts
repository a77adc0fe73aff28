/** Outputs are rounded once, to nearest even: one key gives its value, which shows the rounding alone. */

import assert from "node:assert/strict";
import { batchDecodeWithPaddedKvCache, type Device, type DType } from "@kvasir/attention";
import { onEachBackend } from "../support/device.ts";
import { roundTo } from "../support/formats.ts";
import { normals } from "../support/values.ts";

const BATCH = 24;
const HEAD_DIM = 128;
const COUNT = BATCH * HEAD_DIM;

/** GPUs may take a float32 below it for 0; an H200 does. */
const LEAST_NORMAL = 2 ** -126;

const bitsOf = new Uint32Array(1);
const floatOf = new Float32Array(bitsOf.buffer);
/** The float32 that is `steps` after `x`. */
function neighbour(x: number, steps: number): number {
  floatOf[0] = x;
  bitsOf[0] += steps;
  return floatOf[0];
}

/** Values at and beside the midpoints of a dtype's neighbours, over all exponents it has. */
function hardValues(dtype: DType): Float32Array {
  const mantissaBits = {
    float16: 10,
    bfloat16: 7,
    float8_e4m3fn: 3,
    float8_e5m2: 2,
  }[dtype as string]!;
  const least = {
    float16: -24,
    bfloat16: -126,
    float8_e4m3fn: -9,
    float8_e5m2: -16,
  }[dtype as string]!;
  const most = { float16: 15, bfloat16: 100, float8_e4m3fn: 8, float8_e5m2: 15 }[dtype as string]!;
  const values: number[] = [0, -0, 1e-30, -1e-30, 1e5, -1e5, 1e30];
  for (let i = 0; values.length < COUNT; i++) {
    const exponent = least - 2 + i % (most - least + 4);
    const step = 2 ** Math.max(exponent - mantissaBits, least);
    const code = Math.floor(i / 3) % 2 ** mantissaBits;
    const middle = 2 ** exponent + (code + 0.5) * step;
    for (const steps of [-1, 0, 1]) values.push((i % 2 ? -1 : 1) * neighbour(middle, steps));
  }
  return Float32Array.from(values.slice(0, COUNT));
}

async function rounded(
  device: Device,
  values: Float32Array,
  outDtype: DType,
): Promise<Float32Array> {
  using q = device.tensor(normals(COUNT, 1), [BATCH, 1, HEAD_DIM], "float32");
  using kv = device.tensor(values, [BATCH, 1, 1, HEAD_DIM], "float32");
  using k = device.empty([BATCH, 1, 1, HEAD_DIM], "float32");
  using out = await batchDecodeWithPaddedKvCache(q, k, kv, { outDtype });
  return await out.read();
}

for (const dtype of ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const) {
  onEachBackend(`outputs of ${dtype} are rounded once, to nearest even`, async (device) => {
    const values = hardValues(dtype);
    const got = await rounded(device, values, dtype);
    values.forEach((value, i) => {
      const isFlushed = Math.abs(value) < LEAST_NORMAL && got[i] === 0;
      assert.ok(
        isFlushed || got[i] === roundTo(value, dtype),
        `${value} (${i}) became ${got[i]}, not ${roundTo(value, dtype)}`,
      );
    });
  });
}
