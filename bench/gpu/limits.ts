/**
 * What the GPU at hand can do at most, measured: the roofs under which kernels are judged.
 *
 * @module
 */

import type { GpuStorage } from "../../src/webgpu/buffers.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { type BindingKind, compileKernel } from "../../src/webgpu/kernels.ts";
import type { Dispatch } from "../../src/webgpu/dispatch.ts";
import { type MeasuredLimits, samples } from "../results.ts";
import type { GpuTimer, TimingBudget } from "./timing.ts";

const WORKGROUP = 256;

/** Measures the limits of `backend`'s device. */
export async function measureLimits(
  backend: WebGpuBackend,
  timer: GpuTimer,
  budget: TimingBudget,
): Promise<MeasuredLimits> {
  const f16 = backend.device.features.has("shader-f16");
  return {
    readGbPerSecond: await readBandwidth(backend, timer, budget),
    f32Tflops: await fmaRate(backend, timer, budget, "f32"),
    f16Tflops: f16 ? await fmaRate(backend, timer, budget, "f16") : null,
    dispatchMicroseconds: await emptyDispatch(backend, timer, budget),
    roundTripMicroseconds: await roundTrip(backend),
  };
}

/** Compiles `code` and binds it to `storages`; the grid is one-dimensional. */
async function dispatchOf(
  { device, guard }: WebGpuBackend,
  name: string,
  code: string,
  storages: readonly (readonly [BindingKind, GpuStorage])[],
  workgroups: number,
): Promise<Dispatch> {
  const kinds = storages.map(([kind]) => kind);
  return {
    kernel: await compileKernel(device, guard, name, code, kinds),
    resources: storages.map(([, storage]) => storage.binding),
    grid: [workgroups, 1],
  };
}

/** A software adapter would take minutes for what keeps a GPU busy for a millisecond. */
function isSoftware(backend: WebGpuBackend): boolean {
  return backend.report().adapter?.isFallback ?? false;
}

/** Far larger than any cache; where that is not to be had, what is. */
async function largeStorage(backend: WebGpuBackend): Promise<GpuStorage> {
  const { maxBufferSize, maxStorageBufferBindingSize } = backend.device.limits;
  const most = Math.min(
    maxBufferSize,
    maxStorageBufferBindingSize,
    isSoftware(backend) ? 2 ** 26 : 2 ** 30,
  );
  for (let size = 2 ** Math.floor(Math.log2(most));; size /= 2) {
    const storage = backend.allocate(size, "bandwidth");
    try {
      await storage.ready;
      return storage;
    } catch (error) {
      storage.release();
      if (size <= 2 ** 22) throw error;
    }
  }
}

/** Loads of 16 bytes a lane over a large buffer; GB/s. */
async function readBandwidth(
  backend: WebGpuBackend,
  timer: GpuTimer,
  budget: TimingBudget,
): Promise<number> {
  const data = await largeStorage(backend);
  const size = data.byteLength;
  /** Loads of a lane, all in flight at once. */
  const loads = 8;
  const vectors = size / 16;
  const workgroups = vectors / (WORKGROUP * loads);
  // Lanes beside each other read beside each other; the sum keeps the loads alive.
  const terms = Array.from({ length: loads }, (_, i) => `data[first + ${i * WORKGROUP}u]`);
  const code = `
    @group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
    @group(0) @binding(1) var<storage, read_write> out: array<u32>;
    @compute @workgroup_size(${WORKGROUP})
    fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
      let first = group.x * ${WORKGROUP * loads}u + local;
      let sum = ${terms.join(" ^ ")};
      if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u) { out[0] = local; }
    }`;
  const out = backend.allocate(16, "bandwidth");
  try {
    const storages = [["read", data], ["write", out]] as const;
    const dispatch = await dispatchOf(backend, "read bandwidth", code, storages, workgroups);
    const { median } = samples(await timer.time([[dispatch]], budget));
    return size / median / 1000;
  } finally {
    data.release();
    out.release();
  }
}

/** Independent chains of fused multiply-adds in registers; TFLOP/s. */
async function fmaRate(
  backend: WebGpuBackend,
  timer: GpuTimer,
  budget: TimingBudget,
  scalar: "f32" | "f16",
): Promise<number> {
  const chains = 8;
  const unrolled = 16;
  const rounds = 64;
  const workgroups = isSoftware(backend) ? 64 : 2048;
  const step = Array.from({ length: chains }, (_, i) => `a${i} = fma(a${i}, b, c);`).join(" ");
  const start = Array.from(
    { length: chains },
    (_, i) => `var a${i} = vec4<${scalar}>(${scalar}(local) * 0.001 + ${i}.0);`,
  );
  const sum = Array.from({ length: chains }, (_, i) => `a${i}`).join(" + ");
  const code = `${scalar === "f16" ? "enable f16;" : ""}
    @group(0) @binding(0) var<storage, read_write> out: array<u32>;
    @compute @workgroup_size(${WORKGROUP})
    fn main(@builtin(local_invocation_index) local: u32) {
      let b = vec4<${scalar}>(${scalar}(local) * 0.0001 + 0.5);
      let c = vec4<${scalar}>(${scalar}(local) * 0.0002);
      ${start.join("\n      ")}
      for (var round = 0u; round < ${rounds}u; round++) {
        ${new Array(unrolled).fill(step).join("\n        ")}
      }
      let sum = ${sum};
      if (sum.x + sum.y + sum.z + sum.w == 12345.0) { out[0] = local; }
    }`;
  const out = backend.allocate(16, "fma");
  try {
    const dispatch = await dispatchOf(backend, `fma ${scalar}`, code, [["write", out]], workgroups);
    const { median } = samples(await timer.time([[dispatch]], budget));
    return 2 * 4 * chains * unrolled * rounds * WORKGROUP * workgroups / median / 1e6;
  } finally {
    out.release();
  }
}

const NOTHING = `@group(0) @binding(0) var<storage, read_write> out: array<u32>;
  @compute @workgroup_size(1) fn main() { out[0] = 1u; }`;

async function emptyDispatch(
  backend: WebGpuBackend,
  timer: GpuTimer,
  budget: TimingBudget,
): Promise<number> {
  const out = backend.allocate(16, "nothing");
  try {
    const dispatch = await dispatchOf(backend, "nothing", NOTHING, [["write", out]], 1);
    return samples(await timer.time([[dispatch]], budget)).median;
  } finally {
    out.release();
  }
}

/** From submitting a dispatch until its result is in the host's memory, as a token loop waits. */
async function roundTrip(backend: WebGpuBackend): Promise<number> {
  const { device } = backend;
  const out = backend.allocate(16, "nothing");
  try {
    const dispatch = await dispatchOf(backend, "nothing", NOTHING, [["write", out]], 1);
    const times: number[] = [];
    for (let i = 0; i < 21; i++) {
      const begin = performance.now();
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(dispatch.kernel.pipeline);
      const entries = [{ binding: 0, resource: dispatch.resources[0] }];
      pass.setBindGroup(0, device.createBindGroup({ layout: dispatch.kernel.layout, entries }));
      pass.dispatchWorkgroups(1);
      pass.end();
      device.queue.submit([encoder.finish()]);
      await backend.read(out);
      times.push(1000 * (performance.now() - begin));
    }
    times.sort((a, b) => a - b);
    return times[times.length >> 1];
  } finally {
    out.release();
  }
}
