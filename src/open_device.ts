/**
 * `openDevice`: WebGPU where there is one, else WASM.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { WasmBackend } from "./cpu/backend.ts";
import { type Device, KvasirDevice } from "./device.ts";
import { NoAdapterError, OptionError } from "./errors.ts";
import type { KernelProfile } from "./report.ts";
import { show } from "./shape.ts";
import { openWebGpuBackend } from "./webgpu/backend.ts";
import { requestDevice } from "./webgpu/request_device.ts";

/** Progress of something slow. */
export interface Progress {
  /** From 0 to 1. */
  readonly progress: number;
  /** What is being done, for a person. */
  readonly text: string;
}

/** Options of {@linkcode openDevice}. */
export interface OpenDeviceOptions {
  /**
   * `"webgpu"`, `"wasm"`, or `"auto"`, the default: WebGPU where there is an adapter, else WASM;
   * `device.report.reason` says why.
   */
  backend?: "auto" | "webgpu" | "wasm";
  /**
   * A device of your own (Deno's, the browser's, Dawn's), to share buffers with it. It stays yours.
   * Kernels are faster when it has the feature `"subgroups"`; caches beyond 128 MiB need it to be
   * requested with the adapter's limits.
   */
  gpuDevice?: GPUDevice;
  /** Passed on to `requestAdapter`. */
  powerPreference?: GPUPowerPreference;
  /** Told what is being done while the device opens. */
  onProgress?: (progress: Progress) => void;
  /** Told the GPU time of each dispatch, where the device has `timestamp-query`. */
  onProfile?: (profile: KernelProfile) => void;
}

const OPTIONS = ["backend", "gpuDevice", "powerPreference", "onProgress", "onProfile"];
const BACKENDS: readonly unknown[] = ["auto", "webgpu", "wasm"];
const POWER_PREFERENCES: readonly unknown[] = [undefined, "low-power", "high-performance"];

/** What a person can do about a missing adapter. */
const ADAPTER_HINT =
  "Without a GPU, a software adapter will do: on Debian, install mesa-vulkan-drivers.";

/**
 * Opens a device.
 *
 * @param options See {@linkcode OpenDeviceOptions}.
 * @returns A device, which you `destroy()` or hold with `using`.
 * @throws {NoAdapterError} when `backend: "webgpu"` was asked for and there is no adapter;
 *   `OptionError` for an unknown option; `ShaderError`, `DeviceLostError` from a GPU that fails.
 *
 * @example
 * ```ts
 * import { openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice();
 * console.log(device.report.description, "because", device.report.reason);
 * ```
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<Device> {
  checkOptions(options);
  return new KvasirDevice(await openBackend(options));
}

async function openBackend(options: OpenDeviceOptions): Promise<Backend> {
  const { backend = "auto", gpuDevice, powerPreference, onProfile } = options;
  const say = (progress: number, text: string) => options.onProgress?.({ progress, text });
  if (backend === "wasm") {
    say(1, "WASM is ready");
    return new WasmBackend("the caller asked for it");
  }
  let device = gpuDevice;
  let info: GPUAdapterInfo | null = null;
  if (!device) {
    say(0, "asking WebGPU for an adapter");
    const request = await requestDevice(powerPreference);
    if (!request.device) {
      if (backend === "auto") {
        say(1, "WASM is ready");
        return new WasmBackend(`${request.why}. ${ADAPTER_HINT}`);
      }
      throw new NoAdapterError("openDevice", {
        got: request.why,
        expected: `an adapter, since backend is "webgpu"`,
        hint: `${ADAPTER_HINT} Or use backend: "wasm".`,
      });
    }
    ({ device, info } = request);
  }
  say(0.5, "testing what the GPU can do");
  try {
    const opened = await openWebGpuBackend(device, {
      isBorrowed: gpuDevice !== undefined,
      info,
      reason: gpuDevice ? "the caller brought a GPUDevice" : "WebGPU has an adapter",
      onProfile,
    });
    say(1, "WebGPU is ready");
    return opened;
  } catch (error) {
    if (!gpuDevice) device.destroy();
    throw error;
  }
}

function checkOptions(options: OpenDeviceOptions): void {
  const refuse = (subject: string, got: string, expected: string) =>
    new OptionError(subject, { got, expected, hint: "See the documentation of openDevice." });
  if (typeof options !== "object" || options === null) {
    throw refuse("options", show(options), "an object");
  }
  for (const name of Object.keys(options)) {
    if (!OPTIONS.includes(name)) {
      throw refuse(`options.${name}`, "an unknown option", `one of ${OPTIONS.join(", ")}`);
    }
  }
  const { backend = "auto", gpuDevice, powerPreference, onProgress, onProfile } = options;
  if (!BACKENDS.includes(backend)) {
    throw refuse("options.backend", show(backend), `"auto", "webgpu" or "wasm"`);
  }
  if (!POWER_PREFERENCES.includes(powerPreference)) {
    const expected = `"low-power" or "high-performance"`;
    throw refuse("options.powerPreference", show(powerPreference), expected);
  }
  if (gpuDevice !== undefined && typeof gpuDevice?.createComputePipelineAsync !== "function") {
    throw refuse("options.gpuDevice", show(gpuDevice), "a GPUDevice");
  }
  if (gpuDevice !== undefined && backend === "wasm") {
    throw refuse("options.gpuDevice", `a GPUDevice with backend "wasm"`, "one of the two");
  }
  for (const [name, callback] of Object.entries({ onProgress, onProfile })) {
    if (callback !== undefined && typeof callback !== "function") {
      throw refuse(`options.${name}`, show(callback), "a function");
    }
  }
}
