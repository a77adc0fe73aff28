/**
 * Devices that exist on paper: planning is tested without a GPU.
 *
 * @module
 */

import type { Capabilities, DispatchLimits } from "../../src/webgpu/capabilities.ts";

/** The FP8 modules of a device on which all ways are exact. */
export const FP8 = {
  float8_e4m3fn: {
    module: "formats/e4m3_halves",
    unmarked: "formats/e4m3_bits",
    reason: "exact",
  },
  float8_e5m2: {
    module: "formats/e5m2_halves",
    unmarked: "formats/e5m2_halves",
    reason: "exact",
  },
};

/** A device with subgroups of a size, or without, and WebGPU's default limits. */
export function capabilities(
  subgroupSize: number | null,
  limits: Partial<DispatchLimits> = {},
): Capabilities {
  return {
    compiler: "naga",
    subgroups: subgroupSize === null ? null : { min: subgroupSize, max: subgroupSize },
    enableSubgroups: false,
    subgroupsReason: "as the test says",
    fp8: FP8,
    limits: {
      maxComputeInvocationsPerWorkgroup: 256,
      maxComputeWorkgroupStorageSize: 16384,
      maxComputeWorkgroupsPerDimension: 65535,
      maxStorageBufferBindingSize: 2 ** 27,
      minStorageBufferOffsetAlignment: 256,
      ...limits,
    },
  };
}
