/**
 * The WebGPU calls of a planned step, caught as the library makes them and made again by hand: what a
 * step costs at least in this runtime.
 *
 * @module
 */

/** The calls of one update, and of one run of one dispatch. */
interface StepCalls {
  readonly write: Parameters<GPUQueue["writeBuffer"]>;
  readonly encoder: GPUCommandEncoderDescriptor | undefined;
  readonly pass: GPUComputePassDescriptor | undefined;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly grid: Parameters<GPUComputePassEncoder["dispatchWorkgroups"]>;
}

/** A step made by hand. */
export interface BareStep {
  update(): void;
  run(): void;
}

/** Catches the calls of a step: an update, and then a run. */
export async function bareStep(
  device: GPUDevice,
  update: () => void,
  run: () => Promise<unknown>,
): Promise<BareStep> {
  const last = new Map<string, unknown[]>();
  const undo = [
    spy(last, GPUQueue.prototype, "writeBuffer"),
    spy(last, GPUDevice.prototype, "createCommandEncoder"),
    spy(last, GPUCommandEncoder.prototype, "beginComputePass"),
    spy(last, GPUComputePassEncoder.prototype, "setPipeline"),
    spy(last, GPUComputePassEncoder.prototype, "setBindGroup"),
    spy(last, GPUComputePassEncoder.prototype, "dispatchWorkgroups"),
  ];
  try {
    update();
    await run();
  } finally {
    for (const restore of undo) restore();
  }
  const calls = {
    write: last.get("writeBuffer"),
    encoder: last.get("createCommandEncoder")![0],
    pass: last.get("beginComputePass")![0],
    pipeline: last.get("setPipeline")![0],
    group: last.get("setBindGroup")![1],
    grid: last.get("dispatchWorkgroups"),
  } as StepCalls;
  return {
    update() {
      device.queue.writeBuffer(...calls.write);
    },
    run() {
      const encoder = device.createCommandEncoder(calls.encoder);
      const pass = encoder.beginComputePass(calls.pass);
      pass.setPipeline(calls.pipeline);
      pass.setBindGroup(0, calls.group);
      pass.dispatchWorkgroups(...calls.grid);
      pass.end();
      device.queue.submit([encoder.finish()]);
    },
  };
}

/** Notes the arguments of the last call; gives the way back. */
function spy<T extends object>(
  last: Map<string, unknown[]>,
  prototype: T,
  name: keyof T & string,
): () => void {
  const call = prototype[name] as (...args: unknown[]) => unknown;
  prototype[name] = function (this: unknown, ...args: unknown[]) {
    last.set(name, args);
    return call.apply(this, args);
  } as T[typeof name];
  return () => prototype[name] = call as T[typeof name];
}
