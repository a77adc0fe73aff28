/** Whole caches in FP8 with scales of tokens: bit by bit, and as attention takes them. */

import assert from "node:assert/strict";
import {
  batchDecodeWithPaddedKvCache,
  type Device,
  type Fp8DType,
  quantizeKv,
} from "@kvasir/attention";
import { ownScale } from "../support/append.ts";
import { onEachBackend } from "../support/device.ts";
import { assertFails } from "../support/failures.ts";
import { store } from "../support/storage.ts";
import { normals } from "../support/values.ts";

interface Sizes {
  readonly batch: number | null;
  readonly length: number;
  readonly heads: number;
  readonly dims: readonly [k: number, v: number];
  readonly kvLayout: "NHD" | "HND";
}

async function check(device: Device, s: Sizes, dtype: "float32" | "float16", to: Fp8DType) {
  const { batch, length, heads, dims, kvLayout } = s;
  const outer = batch === null ? [] : [batch];
  const inner = kvLayout === "NHD" ? [length, heads] : [heads, length];
  const rows = (batch ?? 1) * length * heads;
  const inputs = dims.map((dim, i) => store(normals(rows * dim, 5 + i), dtype));
  const [k, v] = dims.map((dim, i) =>
    device.tensorFromBytes(inputs[i].bytes, [...outer, ...inner, dim], dtype)
  );
  const result = await quantizeKv(k, v, to, { kvLayout });
  const scales = await result.kvScales.read();
  const label = JSON.stringify({ ...s, dtype, to });
  assert.deepEqual([...result.kvScales.shape], [...outer, heads, length, 2], label);
  for (const [part, tensor] of [result.k, result.v].entries()) {
    const dim = dims[part];
    assert.deepEqual([...tensor.shape], [...outer, ...inner, dim], label);
    const codes = await tensor.readBytes();
    for (let row = 0; row < rows; row++) {
      const request = Math.floor(row / (length * heads));
      const at = row % (length * heads);
      const [token, head] = kvLayout === "NHD"
        ? [Math.floor(at / heads), at % heads]
        : [at % length, Math.floor(at / length)];
      const values = inputs[part].values.slice(row * dim, (row + 1) * dim);
      const { factor, scale } = ownScale(values, to);
      const found = scales[((request * heads + head) * length + token) * 2 + part];
      assert.equal(found, scale, `${label}: scale of row ${row} of ${part}`);
      const expected = store(values.map((x) => Math.fround(x * factor)), to).bytes;
      assert.deepEqual(codes.slice(row * dim, (row + 1) * dim), expected, `${label}: row ${row}`);
    }
  }
  for (const tensor of [k, v, result.k, result.v, result.kvScales]) tensor.destroy();
}

onEachBackend("quantizeKv() gives every row its own scale, in any layout", async (device) => {
  for (const kvLayout of ["NHD", "HND"] as const) {
    for (const batch of [null, 1, 3]) {
      const sizes = { batch, length: 7, heads: 2, dims: [16, 16], kvLayout } as const;
      await check(device, sizes, "float16", "float8_e4m3fn");
      await check(device, { ...sizes, dims: [24, 8], heads: 1 }, "float32", "float8_e5m2");
    }
    await check(
      device,
      { batch: 2, length: 0, heads: 2, dims: [8, 8], kvLayout },
      "float16",
      "float8_e4m3fn",
    );
  }
});

onEachBackend(
  "attention over quantizeKv()'s result is that over code times scale",
  async (device) => {
    // Rows of any size, which one scale a head does not fit.
    const rows = normals(2 * 30 * 2 * 16, 3).map((x, i) => x * 2 ** (Math.floor(i / 16) % 9));
    using q = device.tensor(normals(2 * 4 * 16, 4).map((x) => x / 64), [2, 4, 16], "float32");
    using k = device.tensor(rows, [2, 30, 2, 16], "float32");
    const quantized = await quantizeKv(k, k, "float8_e4m3fn");
    using k8 = quantized.k;
    using v8 = quantized.v;
    using kvScales = quantized.kvScales;
    const [codes, scales] = [await k8.read(), await kvScales.read()];
    const decoded = codes.map((code, i) => {
      const [request, token, head] = [i / 960, i / 32 % 30, i / 16 % 2].map(Math.floor);
      return code * scales[((request * 2 + head) * 30 + token) * 2];
    });
    using plain = device.tensor(decoded, [2, 30, 2, 16], "float32");
    using exact = await batchDecodeWithPaddedKvCache(q, plain, plain);
    using out = await batchDecodeWithPaddedKvCache(q, k8, v8, { kvScales });
    const [expected, got] = [await exact.read(), await out.read()];
    const most = 1e-5 * Math.max(...expected.map(Math.abs));
    got.forEach((x, i) =>
      assert.ok(Math.abs(x - expected[i]) < most, `${i}: ${x}, ${expected[i]}`)
    );
  },
);

onEachBackend(
  "quantizeKv() refuses what does not fit, and leaves nothing behind",
  async (device) => {
    using k = device.empty([5, 2, 8], "float16");
    using wide = device.empty([5, 2, 16], "float32");
    using long = device.empty([6, 2, 8], "float16");
    using flat = device.empty([5, 16], "float16");
    using codes = device.empty([5, 2, 8], "float8_e5m2");
    const e4m3 = "float8_e4m3fn";
    const call = (...args: unknown[]) => () => quantizeKv(...args as Parameters<typeof quantizeKv>);
    await assertFails("rank", call(flat, flat, e4m3), "ShapeError", "k");
    await assertFails("length", call(k, long, e4m3), "ShapeError", "v");
    await assertFails("v's dtype", call(k, wide, e4m3), "DTypeError", "v");
    await assertFails("codes", call(codes, codes, e4m3), "DTypeError", "k");
    await assertFails("dtype", call(k, k, "float16"), "DTypeError", "dtype");
    await assertFails("option", call(k, k, e4m3, { scale: 1 }), "OptionError", "options.scale");
    await assertFails(
      "layout",
      call(k, k, e4m3, { kvLayout: "NH" }),
      "OptionError",
      "options.kvLayout",
    );
    await assertFails("tensor", call(k, [1], e4m3), "OptionError", "v");
    assert.equal(device.report.memory.tensors, 5);
  },
);
