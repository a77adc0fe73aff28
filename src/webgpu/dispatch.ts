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
 * Runs dispatches one after the other. `prepare` makes them, inside the error scopes, and leaves in
 * `temporary` the buffers that live only for them.
 */
export async function submit(
  { device, guard, profiler }: GpuContext,
  subject: string,
  prepare: (temporary: GPUBuffer[]) => readonly Dispatch[],
): Promise<void> {
  guard.check();
  const temporary: GPUBuffer[] = [];
  const report: (() => void)[] = [];
  const { done } = inErrorScopes(device, subject, () => {
    const dispatches = prepare(temporary);
    const encoder = device.createCommandEncoder({ label: subject });
    if (profiler) {
      // A pass each, since a pass has one pair of timestamps.
      for (const dispatch of dispatches) {
        const timing = profiler.begin(dispatch.kernel.name);
        recordPass(device, encoder, [dispatch], timing.passDescriptor);
        timing.resolve(encoder);
        report.push(timing.report);
      }
    } else {
      recordPass(device, encoder, dispatches, {});
    }
    device.queue.submit([encoder.finish()]);
  });
  // What is submitted keeps its memory until it has run.
  for (const buffer of temporary) buffer.destroy();
  await guard.race(done);
  for (const timing of report) timing();
}

function recordPass(
  device: GPUDevice,
  encoder: GPUCommandEncoder,
  dispatches: readonly Dispatch[],
  descriptor: GPUComputePassDescriptor,
): void {
  const pass = encoder.beginComputePass({ label: dispatches[0].kernel.name, ...descriptor });
  for (const dispatch of dispatches) record(device, pass, dispatch);
  pass.end();
}
