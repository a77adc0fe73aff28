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

/** A dispatch with its bind group. */
export interface BoundDispatch {
  readonly kernel: Kernel;
  readonly group: GPUBindGroup;
  readonly grid: readonly [number, number];
}

/** The bind group of a dispatch. */
export function groupOf(
  device: GPUDevice,
  { kernel, resources }: Pick<Dispatch, "kernel" | "resources">,
): GPUBindGroup {
  return device.createBindGroup({
    label: kernel.name,
    layout: kernel.layout,
    entries: resources.map((resource, binding) => ({ binding, resource })),
  });
}

/** Records a dispatch in a compute pass. */
export function record(
  device: GPUDevice,
  pass: GPUComputePassEncoder,
  dispatch: Dispatch | BoundDispatch,
): void {
  const { kernel, grid } = dispatch;
  pass.setPipeline(kernel.pipeline);
  pass.setBindGroup(0, "group" in dispatch ? dispatch.group : groupOf(device, dispatch));
  pass.dispatchWorkgroups(grid[0], grid[1]);
}

/**
 * Runs dispatches one after the other. `prepare` makes them, inside the error scopes, and leaves in
 * `temporary` the buffers that live only for them.
 */
export async function submit(
  { device, guard, profiler }: GpuContext,
  subject: string,
  prepare: (temporary: GPUBuffer[]) => readonly (Dispatch | BoundDispatch)[],
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

/** Runs dispatches that ran before with the same buffers: what could be wrong was heard of then. */
export function submitQuickly(
  { device, guard }: GpuContext,
  subject: string,
  dispatches: readonly BoundDispatch[],
): void {
  guard.check();
  const encoder = device.createCommandEncoder({ label: subject });
  recordPass(device, encoder, dispatches, {});
  device.queue.submit([encoder.finish()]);
}

/** Records dispatches in a pass of their own. */
export function recordPass(
  device: GPUDevice,
  encoder: GPUCommandEncoder,
  dispatches: readonly (Dispatch | BoundDispatch)[],
  descriptor: GPUComputePassDescriptor,
): void {
  const pass = encoder.beginComputePass({ label: dispatches[0].kernel.name, ...descriptor });
  for (const dispatch of dispatches) record(device, pass, dispatch);
  pass.end();
}
