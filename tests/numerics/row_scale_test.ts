/** The quotient of a row's factor on a GPU: exact wherever division, which may be off, begins. */

import assert from "node:assert/strict";
import { shaders } from "../../src/generated/shaders.js";
import { unroll } from "../../src/webgpu/unroll.ts";
import { gpuTest, openGpuDevice } from "../support/device.ts";
import { randomBits } from "../support/values.ts";

const OFFSETS = 9; // from -4 to 4

gpuTest("nearest_units() is right up to four units away", async () => {
  const edges = [0, 1, 2, 0x5fffff, 0x600000, 0x600001, 0x7ffffe, 0x7fffff];
  const random = randomBits(4096 - edges.length, 3);
  const mantissas = Uint32Array.of(...edges, ...random).map((bits) => bits & 0x7fffff | 0x800000);
  const exact = Array.from(mantissas, (mantissa) => {
    const m = mantissa / 2 ** 23;
    return Math.fround((m > 1.75 ? 3.5 : 1.75) / m) * 2 ** 23;
  });
  const code =
    unroll(shaders["append/row_scale"].replace(/^import .*;$/m, "const EXPONENT = 8u;"), {}) + `
    @group(0) @binding(0) var<storage, read> starts: array<vec2<u32>>;
    @group(0) @binding(1) var<storage, read_write> results: array<u32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
      results[id.x] = nearest_units(starts[id.x].x, starts[id.x].y);
    }`;
  const starts = new Uint32Array(2 * OFFSETS * mantissas.length);
  exact.forEach((units, i) => {
    for (let j = 0; j < OFFSETS; j++) {
      starts.set([units + j - 4, mantissas[i]], 2 * (OFFSETS * i + j));
    }
  });
  const device = await openGpuDevice();
  const { STORAGE, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
  const source = device.createBuffer({ size: starts.byteLength, usage: STORAGE | COPY_DST });
  const size = starts.byteLength / 2;
  const target = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
  const staging = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(source, 0, starts);
  const pipeline = device.createComputePipeline({
    layout: "auto",
    compute: { module: device.createShaderModule({ code }) },
  });
  const entries = [source, target].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(starts.length / 2 / 64);
  pass.end();
  encoder.copyBufferToBuffer(target, 0, staging, 0, size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const results = new Uint32Array(staging.getMappedRange().slice(0));
  results.forEach((units, i) => {
    const at = Math.floor(i / OFFSETS);
    assert.equal(units, exact[at], `mantissa ${mantissas[at]}, from ${i % OFFSETS - 4} units away`);
  });
  for (const buffer of [source, target, staging]) buffer.destroy();
  device.destroy();
});
