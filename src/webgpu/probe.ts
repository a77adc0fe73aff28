/**
 * Runs a tiny shader to see what a device really does.
 *
 * @module
 */

import { allocateStorage } from "./buffers.ts";
import { inErrorScopes, type LossGuard } from "./gpu_errors.ts";
import { compileKernel } from "./kernels.ts";
import { Readback } from "./readback.ts";

/** Runs one workgroup of `code`, whose binding 0 is what it writes, and reads that back. */
export async function runProbe(
  device: GPUDevice,
  guard: LossGuard,
  name: string,
  code: string,
  words: number,
): Promise<Uint32Array> {
  const kernel = await compileKernel(device, guard, name, code, ["write"]);
  const storage = allocateStorage(device, words * 4, name);
  try {
    const { done } = inErrorScopes(device, name, () => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(kernel.pipeline);
      const entries = [{ binding: 0, resource: storage.binding }];
      pass.setBindGroup(0, device.createBindGroup({ layout: kernel.layout, entries }));
      pass.dispatchWorkgroups(1);
      pass.end();
      device.queue.submit([encoder.finish()]);
    });
    await guard.race(done);
    return new Uint32Array((await new Readback(device, guard, false).read(storage)).buffer);
  } finally {
    storage.release();
  }
}
