/**
 * From WebGPU's ways of failing (error scopes, a lost device) to the library's typed errors.
 *
 * @module
 */

import { DeviceLostError, KvasirError, OutOfMemoryError } from "../errors.ts";

/** Remembers whether a device is lost, and fails what waits on it when it is. */
export class LossGuard {
  /** Settles when the device is lost; never rejects. */
  readonly lost: Promise<DeviceLostError>;
  #error: DeviceLostError | undefined;
  #resolve: (error: DeviceLostError) => void = () => {};
  readonly #waiting = new Set<(error: DeviceLostError) => void>();

  constructor(device: GPUDevice) {
    this.lost = new Promise((resolve) => this.#resolve = resolve);
    device.lost.then((info) => this.#lose(`${info.reason}: ${info.message}`));
  }

  /** Marks the device as lost; for `destroy()`, which need not wait for the GPU to say so. */
  markDestroyed(): void {
    this.#lose("destroyed");
  }

  /** Throws `DeviceLostError` if the device is gone. */
  check(): void {
    if (this.#error) throw this.#error;
  }

  /** Waits for `promise`, or fails as soon as the device is lost. */
  async race<T>(promise: Promise<T>): Promise<T> {
    this.check();
    let reject: (error: DeviceLostError) => void = () => {};
    const loss = new Promise<never>((_, r) => reject = r);
    this.#waiting.add(reject);
    try {
      return await Promise.race([promise, loss]);
    } finally {
      this.#waiting.delete(reject);
    }
  }

  #lose(reason: string): void {
    if (this.#error) return;
    this.#error = new DeviceLostError("device", {
      got: `a lost GPU device (${reason})`,
      expected: "a working one",
      hint: "Open a new device and upload the tensors again.",
    });
    this.#resolve(this.#error);
    for (const reject of this.#waiting) reject(this.#error);
    this.#waiting.clear();
  }
}

/**
 * Runs `work` inside error scopes. `done` rejects with `OutOfMemoryError` or a `KvasirError` that
 * holds the validation message. The scopes are pushed and popped before this returns, so calls that
 * interleave cannot take each other's errors.
 */
export function inErrorScopes<T>(
  device: GPUDevice,
  subject: string,
  work: () => T,
): { result: T; done: Promise<void> } {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  let scopes: Promise<[GPUError | null, GPUError | null]> | undefined;
  try {
    const result = work();
    scopes = Promise.all([device.popErrorScope(), device.popErrorScope()]);
    return {
      result,
      done: scopes.then(([memory, validation]) => check(subject, memory, validation)),
    };
  } finally {
    // `work` threw: the scopes still have to go.
    if (!scopes) Promise.all([device.popErrorScope(), device.popErrorScope()]).catch(() => {});
  }
}

function check(subject: string, memory: GPUError | null, validation: GPUError | null): void {
  if (memory) throw outOfMemory(subject, memory.message);
  if (!validation) return;
  throw new KvasirError(subject, {
    got: `the GPU's refusal: ${validation.message}`,
    expected: "buffers of the same GPUDevice that are alive",
    hint: "Look at borrowed buffers (tensorFromBuffer) first: their device, usage and lifetime.",
  }, "KVASIR_GPU_VALIDATION");
}

/** The typed error of an allocation that the GPU refused. */
function outOfMemory(subject: string, message: string): OutOfMemoryError {
  return new OutOfMemoryError(subject, {
    got: `no memory on the GPU (${message})`,
    expected: "a free piece of that size",
    hint: "Destroy tensors that are no longer needed, or use a smaller dtype for the cache.",
  });
}
