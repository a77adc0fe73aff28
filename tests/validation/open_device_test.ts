/** Opening devices: options, reports, progress, profiles, and a `GPUDevice` of one's own. */

import assert from "node:assert/strict";
import {
  batchDecodeWithPaddedKvCache,
  type Device,
  type KernelProfile,
  openDevice,
  type OpenDeviceOptions,
  type Progress,
} from "@kvasir/attention";
import { adapter, gpuTest, openGpuDevice } from "../support/device.ts";
import { assertFails } from "../support/failures.ts";
import { normals } from "../support/values.ts";

Deno.test("openDevice() refuses unknown and bad options", async () => {
  const cases: readonly (readonly [unknown, string, RegExp])[] = [
    [null, "options", /an object/],
    ["webgpu", "options", /an object/],
    [{ Backend: "wasm" }, "options.Backend", /backend, gpuDevice/],
    [{ backend: "cpu" }, "options.backend", /"auto", "webgpu" or "wasm"/],
    [{ backend: null }, "options.backend", /"auto"/],
    [{ gpuDevice: {} }, "options.gpuDevice", /a GPUDevice/],
    [{ gpuDevice: null }, "options.gpuDevice", /a GPUDevice/],
    [{ powerPreference: "max" }, "options.powerPreference", /"high-performance"/],
    [{ backend: "wasm", onProgress: true }, "options.onProgress", /a function/],
    [{ backend: "wasm", onProfile: "x" }, "options.onProfile", /a function/],
  ];
  for (const [options, subject, message] of cases) {
    const open = () => openDevice(options as OpenDeviceOptions);
    await assertFails(JSON.stringify(options), open, "OptionError", subject, message);
  }
});

Deno.test("openDevice() takes WebGPU where there is an adapter, else WASM, and says why", async () => {
  using device = await openDevice();
  assert.equal(device.backend, adapter ? "webgpu" : "wasm");
  assert.equal(device.report.backend, device.backend);
  assert.match(device.report.reason, adapter ? /adapter/ : /mesa-vulkan-drivers/);
  assert.ok(device.report.description.length > 0);
});

Deno.test("the report of a WASM device says which build runs", async () => {
  using device = await openDevice({ backend: "wasm" });
  const { report } = device;
  assert.equal(report.adapter, null);
  assert.equal(report.shaderCompiler, null);
  assert.equal(report.subgroupSize, null);
  assert.ok(report.features.includes("simd128"));
  assert.ok(report.kernels.length > 0);
  assert.ok(report.kernels.every(({ family, variant, reason }) => family && variant && reason));
});

/** The smallest call there is. */
async function decodeOnce(device: Device) {
  using q = device.tensor(normals(16, 1), [1, 2, 8], "float32");
  using cache = device.tensor(normals(24, 2), [1, 3, 1, 8], "float8_e4m3fn");
  (await batchDecodeWithPaddedKvCache(q, cache, cache)).destroy();
}

for (const backend of ["wasm", "webgpu"] as const) {
  Deno.test({
    name: `openDevice() tells its progress [${backend}]`,
    ignore: backend === "webgpu" && !adapter,
    fn: async () => {
      const steps: Progress[] = [];
      using _device = await openDevice({ backend, onProgress: (step) => steps.push(step) });
      assert.ok(steps.length > 0);
      assert.ok(steps.every(({ text }) => text.length > 0));
      const numbers = steps.map(({ progress }) => progress);
      assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
      assert.equal(numbers.at(-1), 1);
    },
  });
}

gpuTest("the report of a WebGPU device names adapter, limits and kernels", async () => {
  using device = await openDevice({ backend: "webgpu" });
  await decodeOnce(device);
  const { report } = device;
  assert.ok(report.adapter);
  assert.ok(report.shaderCompiler === "naga" || report.shaderCompiler === "tint");
  assert.equal(report.subgroupSize !== null, report.features.includes("subgroups"));
  assert.ok(report.limits.maxBufferSize >= 2 ** 28);
  assert.ok(report.kernels.every(({ family, variant, reason }) => family && variant && reason));
  assert.ok(report.kernels.some(({ family }) => family === "decode"));
});

gpuTest("a device without features runs the portable rung, and says so", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  await decodeOnce(device);
  assert.equal(device.report.subgroupSize, null);
  const text = device.report.kernels.map(({ variant }) => variant).join(" ");
  assert.match(text, /portable/);
  assert.doesNotMatch(text, /decode\.subgroups/);
  gpuDevice.destroy();
});

gpuTest("a GPUDevice of one's own stays alive, and shares its buffers", async () => {
  const gpuDevice = await openGpuDevice();
  const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
  const buffer = gpuDevice.createBuffer({ size: 1024, usage: STORAGE | COPY_DST | COPY_SRC });
  const values = Float32Array.from(normals(48, 5));
  gpuDevice.queue.writeBuffer(buffer, 256, values);
  const device = await openDevice({ gpuDevice });
  using q = device.tensor(normals(16, 1), [1, 2, 8], "float32");
  using borrowed = device.tensorFromBuffer(buffer, [1, 6, 1, 8], "float32", 256);
  using copied = device.tensor(values, [1, 6, 1, 8], "float32");
  assert.deepEqual(await borrowed.read(), values);
  assert.equal(borrowed.buffer, buffer);
  using a = await batchDecodeWithPaddedKvCache(q, borrowed, borrowed);
  using b = await batchDecodeWithPaddedKvCache(q, copied, copied);
  assert.deepEqual(await a.readBytes(), await b.readBytes());
  device.destroy();
  // Neither the device nor the buffer was the library's to destroy.
  const staging = gpuDevice.createBuffer({ size: 192, usage: COPY_DST | GPUBufferUsage.MAP_READ });
  const encoder = gpuDevice.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 256, staging, 0, 192);
  gpuDevice.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  assert.deepEqual(new Float32Array(staging.getMappedRange().slice(0)), values);
  staging.destroy();
  buffer.destroy();
  gpuDevice.destroy();
});

gpuTest("onProfile is told the time of each dispatch, where timestamps are to be had", async () => {
  const profiles: KernelProfile[] = [];
  using device = await openDevice({ backend: "webgpu", onProfile: (p) => profiles.push(p) });
  await decodeOnce(device);
  await decodeOnce(device);
  // Times come after the results.
  for (let i = 0; i < 100 && profiles.length < 2; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  if (!device.report.features.includes("timestamp-query")) {
    assert.deepEqual(profiles, []);
    return;
  }
  assert.equal(profiles.length, 2);
  for (const { kernel, microseconds } of profiles) {
    assert.match(kernel, /^decode/);
    assert.ok(microseconds >= 0 && microseconds < 1e7, `${microseconds}`);
  }
});
