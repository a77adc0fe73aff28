/**
 * Dispatches that are ready to run: a kernel, what it is bound to, and its grid.
 *
 * @module
 */

import type { GpuContext } from "./context.ts";
import { inErrorScopes } from "./gpu_errors.ts";
import type { Kernel } from "./kernels.ts";

/** One dispatch, with everything but the pass that it is recorded in. */
export interface Dispatch {
  readonly kernel: Kernel;
  /** In the order of the kernel's bindings. */
  readonly resources: readonly GPUBufferBinding[];
  readonly grid: readonly [number, number];
}

/** Records `dispatch` in a compute pass. */
export function record(device: GPUDevice, pass: GPUComputePassEncoder, dispatch: Dispatch): void {
  const { kernel, resources, grid } = dispatch;
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(
    0,
    device.createBindGroup({
      label: kernel.name,
      layout: kernel.layout,
      entries: resources.map((resource, binding) => ({ binding, resource })),
    }),
  );
  pass.dispatchWorkgroups(...grid);
}

/**
 * Runs one dispatch. `prepare` makes it, inside the error scopes, and leaves in `temporary` the buffers
 * that live only for it.
 */
export async function submit(
  { device, guard, profiler }: GpuContext,
  kernel: Kernel,
  prepare: (temporary: GPUBuffer[]) => Dispatch,
): Promise<void> {
  guard.check();
  const temporary: GPUBuffer[] = [];
  const timing = profiler?.begin(kernel.name);
  const { done } = inErrorScopes(device, kernel.name, () => {
    const dispatch = prepare(temporary);
    const encoder = device.createCommandEncoder({ label: kernel.name });
    const pass = encoder.beginComputePass({ label: kernel.name, ...timing?.passDescriptor });
    record(device, pass, dispatch);
    pass.end();
    timing?.resolve(encoder);
    device.queue.submit([encoder.finish()]);
  });
  // What is submitted keeps its memory until it has run.
  for (const buffer of temporary) buffer.destroy();
  await guard.race(done);
  timing?.report();
}
