/**
 * Opens the GPU for the bench: the runtime's own WebGPU, or Dawn with `KVASIR_GPU=dawn` and wherever
 * the runtime has none (Node).
 *
 * @module
 */

import process from "node:process";
import { openWebGpuBackend, type WebGpuBackend } from "../../src/webgpu/backend.ts";
import { requestDevice } from "../../src/webgpu/request_device.ts";
import { putDawnOnNavigator } from "../../tools/dawn.ts";
import { firstLine } from "../bench_error.ts";

/** The GPU with all that the bench can use; null, after one line, where there is none. */
export async function openGpu(): Promise<WebGpuBackend | null> {
  const leftOut = (why: string) => {
    console.log(`GPU: left out, ${why}`);
    return null;
  };
  if (process.env.KVASIR_GPU === "dawn" || !globalThis.navigator?.gpu) {
    try {
      await putDawnOnNavigator();
    } catch (error) {
      return leftOut(`Dawn (npm webgpu, or the addon that DAWN_NODE names): ${firstLine(error)}`);
    }
  }
  const request = await requestDevice("high-performance", ["shader-f16"]);
  if (!request.device) return leftOut(request.why);
  if (!request.device.features.has("timestamp-query")) {
    return leftOut("the adapter has no timestamp-query");
  }
  return await openWebGpuBackend(request.device, {
    isBorrowed: false,
    info: request.info,
    reason: "the bench",
  });
}
