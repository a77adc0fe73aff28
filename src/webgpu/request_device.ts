/**
 * Finds an adapter and requests a device with all that the kernels can use.
 *
 * @module
 */

/** What came of asking for a GPU. */
export type DeviceRequest =
  | { readonly device: GPUDevice; readonly info: GPUAdapterInfo }
  | { readonly device: null; readonly why: string };

/** Limits of which the adapter's best is requested; WebGPU's defaults are for the weakest GPUs. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/**
 * Requests a device, with subgroups and timestamps where they can be had.
 *
 * @param powerPreference As in WebGPU; default the implementation's.
 * @param more Other features to ask for where the adapter has them.
 */
export async function requestDevice(
  powerPreference: GPUPowerPreference | undefined,
  more: readonly GPUFeatureName[] = [],
): Promise<DeviceRequest> {
  const gpu = (globalThis.navigator as Navigator | undefined)?.gpu;
  if (!gpu) return { device: null, why: "this runtime has no WebGPU (navigator.gpu)" };
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter(powerPreference ? { powerPreference } : {});
  } catch (error) {
    return { device: null, why: `requestAdapter failed: ${message(error)}` };
  }
  if (!adapter) return { device: null, why: "WebGPU found no adapter" };
  const requiredLimits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) requiredLimits[name] = adapter.limits[name];
  const { features } = adapter;
  const wanted: readonly GPUFeatureName[] = [...more, "timestamp-query"];
  const optional = wanted.filter((name) => features.has(name));
  // Deno does not list subgroups among the adapter's features, yet grants them.
  const withSubgroups = [...optional, "subgroups" as GPUFeatureName];
  let failure = "";
  for (const requiredFeatures of [withSubgroups, optional]) {
    try {
      const device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
      return { device, info: adapter.info };
    } catch (error) {
      failure = message(error);
    }
  }
  return { device: null, why: `requestDevice failed: ${failure}` };
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
