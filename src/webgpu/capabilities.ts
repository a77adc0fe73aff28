/**
 * What a GPU device can do, found by trying: adapters say too little (Deno hides subgroups), and
 * implementations differ in what they get right.
 *
 * @module
 */

import type { Fp8DType } from "../dtype.ts";
import type { Fp8Decoding } from "./fp8_choice.ts";
import { probeFp8 } from "./fp8_probe.ts";
import type { LossGuard } from "./gpu_errors.ts";
import { runProbe } from "./probe.ts";

/** What kernels are chosen by. Plain data: planning is tested without a GPU. */
export interface Capabilities {
  readonly compiler: "naga" | "tint";
  /** The smallest and largest subgroup, or null where subgroups are not to be used. */
  readonly subgroups: { readonly min: number; readonly max: number } | null;
  /** Whether the compiler wants `enable subgroups;` (Tint does, naga does not know it). */
  readonly enableSubgroups: boolean;
  /** Why subgroups are used, or not. */
  readonly subgroupsReason: string;
  /** Which module decodes each FP8 format, and why. */
  readonly fp8: Readonly<Record<Fp8DType, Fp8Decoding>>;
  readonly limits: DispatchLimits;
}

/** The limits that planning needs. */
export interface DispatchLimits {
  readonly maxComputeInvocationsPerWorkgroup: number;
  readonly maxComputeWorkgroupStorageSize: number;
  readonly maxComputeWorkgroupsPerDimension: number;
  readonly maxStorageBufferBindingSize: number;
  readonly minStorageBufferOffsetAlignment: number;
}

/** Lanes of the workgroup that the subgroup probe runs. */
const PROBE_LANES = 64;
/** The smallest subgroup of a GPU, where the adapter may not be asked; smaller ones are measured. */
const SMALLEST_SUBGROUP = 8;

const EMPTY = "@compute @workgroup_size(1) fn main() {}";

/** What the adapter says of its subgroups, or null where it may not be asked. */
export type SubgroupInfo = { readonly min: number; readonly max: number } | null;

/** What the adapter says of itself, where it may be asked. */
export interface AdapterFacts {
  readonly subgroups: SubgroupInfo;
  /** Whether it is a CPU. */
  readonly isSoftware: boolean;
}

/** Finds out what `device` can do, by a few small dispatches. */
export async function probeCapabilities(
  device: GPUDevice,
  guard: LossGuard,
  { subgroups: info, isSoftware }: AdapterFacts,
): Promise<Capabilities> {
  const [isNaga, subgroups, fp8] = await Promise.all([
    compiles(device, guard, STRAY_BARRIER),
    probeSubgroups(device, guard, info),
    probeFp8(device, guard, isSoftware),
  ]);
  return {
    compiler: isNaga ? "naga" : "tint",
    ...subgroups,
    fp8,
    limits: {
      maxComputeInvocationsPerWorkgroup: device.limits.maxComputeInvocationsPerWorkgroup,
      maxComputeWorkgroupStorageSize: device.limits.maxComputeWorkgroupStorageSize,
      maxComputeWorkgroupsPerDimension: device.limits.maxComputeWorkgroupsPerDimension,
      maxStorageBufferBindingSize: device.limits.maxStorageBufferBindingSize,
      minStorageBufferOffsetAlignment: device.limits.minStorageBufferOffsetAlignment,
    },
  };
}

/** A barrier that not all lanes reach: Tint refuses it, as WGSL demands; naga does not look. */
const STRAY_BARRIER = `@compute @workgroup_size(2)
  fn main(@builtin(local_invocation_index) local: u32) {
    if (local == 0u) { workgroupBarrier(); }
  }`;

async function compiles(device: GPUDevice, guard: LossGuard, code: string): Promise<boolean> {
  device.pushErrorScope("validation");
  device.createShaderModule({ label: "probe", code });
  return await guard.race(device.popErrorScope()) === null;
}

/**
 * Whether shuffles work as the kernels use them: lanes that follow each other in a workgroup must
 * follow each other in a subgroup, which WGSL does not promise.
 */
async function probeSubgroups(
  device: GPUDevice,
  guard: LossGuard,
  info: SubgroupInfo,
): Promise<Pick<Capabilities, "subgroups" | "subgroupsReason" | "enableSubgroups">> {
  const without = (subgroupsReason: string) => ({
    subgroups: null,
    subgroupsReason,
    enableSubgroups: false,
  });
  if (!device.features.has("subgroups")) return without("the device has no subgroups");
  const enableSubgroups = await compiles(device, guard, `enable subgroups;\n${EMPTY}`);
  const code = `${enableSubgroups ? "enable subgroups;" : ""}
    @group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;
    @compute @workgroup_size(${PROBE_LANES})
    fn main(
      @builtin(local_invocation_index) local: u32,
      @builtin(subgroup_invocation_id) lane: u32,
      @builtin(subgroup_size) size: u32,
    ) {
      out[local] = vec4<u32>(size, lane, subgroupShuffleXor(local, 1u), 0u);
    }`;
  let words: Uint32Array;
  try {
    words = await runProbe(device, guard, "subgroup probe", code, PROBE_LANES * 4);
  } catch (error) {
    guard.check();
    return without(`shuffles do not work: ${error instanceof Error ? error.message : error}`);
  }
  const size = words[0];
  for (let local = 0; local < PROBE_LANES; local++) {
    const [s, lane, neighbour] = words.subarray(local * 4, local * 4 + 3);
    if (s !== size || lane !== local % size || neighbour !== (local ^ 1)) {
      return without("shuffles failed their self-test");
    }
  }
  // Another kernel may get another size; the adapter knows the range, else no GPU goes below this.
  const { min, max } = info ?? { min: Math.min(size, SMALLEST_SUBGROUP), max: size };
  return {
    subgroups: { min: Math.min(min, size), max: Math.max(max, size) },
    subgroupsReason: `subgroups of ${size} passed their self-test`,
    enableSubgroups,
  };
}
