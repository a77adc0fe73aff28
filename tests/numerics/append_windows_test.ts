/** Caches and tensors larger than one binding: the same bits, in several dispatches. */

import assert from "node:assert/strict";
import { openDevice, quantize } from "@kvasir/attention";
import type { KvasirDevice } from "../../src/device.ts";
import { type AppendSpec, drawAppend, expectedBytes, runAppend } from "../support/append.ts";
import { gpuTest } from "../support/device.ts";
import { store } from "../support/storage.ts";
import { normals } from "../support/values.ts";

/** A device that plans as if its bindings were small. */
async function openSmall(maxStorageBufferBindingSize: number) {
  const device = await openDevice({ backend: "webgpu" });
  const engine = (device as KvasirDevice).engine as unknown as {
    capabilities: { limits: Record<string, number> };
  };
  const { limits } = engine.capabilities;
  engine.capabilities = {
    ...engine.capabilities,
    limits: { ...limits, maxStorageBufferBindingSize },
  };
  return device;
}

const SPEC: AppendSpec = {
  lengths: [40, 33, 0, 17],
  appended: [40, 5, 0, 17],
  pageSize: 3,
  heads: 2,
  headDim: 8,
  dtype: "float16",
  kvDtype: "float8_e4m3fn",
  kvLayout: "NHD",
  joined: true,
};

gpuTest("appends to caches larger than a binding, page by page", async () => {
  for (const bindingBytes of [2000, 2345, 4000]) {
    using device = await openSmall(bindingBytes);
    for (const joined of [true, false]) {
      for (const kvDtype of ["float8_e4m3fn", "float16", "float32"] as const) {
        for (const kvLayout of ["NHD", "HND"] as const) {
          // A value's page is larger than a key's.
          const sizes = joined ? {} : { headDimV: 16, appended: [7, 5, 0, 17] };
          const c = drawAppend({ ...SPEC, ...sizes, joined, kvDtype, kvLayout });
          const label = `${bindingBytes}, ${joined}, ${kvDtype}, ${kvLayout}`;
          assert.deepEqual(await runAppend(device, c), expectedBytes(c), label);
        }
      }
    }
  }
  using device = await openSmall(3000);
  const turned = { ...SPEC, kScale: 2, kvDtype: "bfloat16" } as const;
  const c = drawAppend({ ...turned, appended: [9, 5, 0, 17] });
  assert.deepEqual(await runAppend(device, c), expectedBytes(c));
});

gpuTest("rows larger than a binding are refused, and nothing is written", async () => {
  using device = await openSmall(1900);
  await assert.rejects(runAppend(device, drawAppend(SPEC)), /appendKey: got 1984 bytes/);
  const pair = drawAppend({ ...SPEC, joined: false, headDimV: 24, appended: [7, 5, 0, 17] });
  await assert.rejects(runAppend(device, pair), /appendValue: got 2784 bytes/);
});

gpuTest("a page larger than a binding is refused, and nothing is written", async () => {
  using device = await openSmall(2000);
  const c = drawAppend({ ...SPEC, pageSize: 64, appended: [1, 0, 0, 0] });
  await assert.rejects(runAppend(device, c), /kvCache: got pages of 2048 bytes/);
});

gpuTest("tensors larger than a binding are converted part by part", async () => {
  using device = await openSmall(5000);
  for (const [from, to] of [["float32", "float8_e5m2"], ["float8_e4m3fn", "float16"]] as const) {
    for (const count of [1249, 1250, 2500, 10_007]) {
      const source = store(normals(count, 3), from);
      using tensor = device.tensorFromBytes(source.bytes, [count], from);
      using result = await quantize(tensor, to);
      assert.deepEqual(await result.readBytes(), store(source.values, to).bytes, `${count} ${to}`);
    }
  }
});
