/**
 * The WebGPU backend: tensors are GPU buffers, attention is a kernel.
 *
 * @module
 */

import type { AppendProblem } from "../append_problem.ts";
import type { AttentionProblem, MergeProblem } from "../attention_problem.ts";
import type {
  AppendOperands,
  AttentionOperands,
  Backend,
  ConvertOperands,
  CopiedPart,
  MergeOperands,
  PreparedAttention,
} from "../backend.ts";
import type { ConvertProblem } from "../convert_problem.ts";
import type { DeviceLostError } from "../errors.ts";
import type { AdapterReport, DeviceReport, KernelChoice, KernelProfile } from "../report.ts";
import { runAppend } from "./append.ts";
import { runAttention } from "./attention.ts";
import {
  allocateStorage,
  borrowStorage,
  copyParts,
  copyStorage,
  type GpuStorage,
  upload,
} from "./buffers.ts";
import { type Capabilities, probeCapabilities } from "./capabilities.ts";
import type { GpuContext } from "./context.ts";
import { LossGuard } from "./gpu_errors.ts";
import { KernelCache } from "./kernels.ts";
import { runMerge } from "./merge.ts";
import { PreparedOnGpu } from "./prepared.ts";
import { Profiler } from "./profiler.ts";
import { runQuantize } from "./quantize.ts";
import { Readback } from "./readback.ts";
import { RopeTables } from "./rope_tables.ts";
import { probeRounding, type Rounding } from "./rounding_probe.ts";

/** What `openWebGpuBackend` is given beside the device. */
export interface WebGpuOptions {
  /** Whether the caller keeps the device when the backend is destroyed. */
  readonly isBorrowed: boolean;
  /**
   * What the adapter says of itself; null for a caller's device. (`device.adapterInfo` is no way to
   * it: in Deno 2.9 it panics once the adapter has been garbage-collected.)
   */
  readonly info: GPUAdapterInfo | null;
  /** Why WebGPU, for the report. */
  readonly reason: string;
  readonly onProfile?: (profile: KernelProfile) => void;
}

/** Limits that the report shows. */
const REPORTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Probes a device and makes a backend of it. */
export async function openWebGpuBackend(
  device: GPUDevice,
  options: WebGpuOptions,
): Promise<WebGpuBackend> {
  const guard = new LossGuard(device);
  const { subgroupMinSize: min, subgroupMaxSize: max } = options.info ?? {};
  const facts = {
    subgroups: min && max ? { min, max } : null,
    isSoftware: options.info?.isFallbackAdapter ?? false,
  };
  return new WebGpuBackend(device, guard, await probeCapabilities(device, guard, facts), options);
}

/** Attention on a GPU. */
export class WebGpuBackend implements Backend, GpuContext {
  readonly name = "webgpu";
  readonly kernels: KernelCache;
  readonly ropeTables: RopeTables;
  readonly readback: Readback;
  readonly profiler: Profiler | null;
  readonly choices: KernelChoice[] = [];
  #rounding: Promise<Rounding> | null = null;

  constructor(
    readonly device: GPUDevice,
    readonly guard: LossGuard,
    readonly capabilities: Capabilities,
    readonly options: WebGpuOptions,
  ) {
    this.kernels = new KernelCache(device, guard, capabilities.enableSubgroups);
    this.ropeTables = new RopeTables(device);
    this.readback = new Readback(device, guard);
    this.profiler = options.onProfile && device.features.has("timestamp-query")
      ? new Profiler(device, guard, options.onProfile)
      : null;
  }

  get lost(): Promise<DeviceLostError> {
    return this.guard.lost;
  }

  report(): DeviceReport {
    const { capabilities, device } = this;
    const adapter = adapterReport(this.options.info);
    const { subgroups, subgroupsReason, fp8 } = capabilities;
    return {
      backend: "webgpu",
      reason: this.options.reason,
      description: adapter.description || adapter.device ||
        "a GPUDevice of the caller's",
      adapter,
      features: [...device.features].sort(),
      limits: Object.fromEntries(REPORTED_LIMITS.map((name) => [name, device.limits[name]])),
      shaderCompiler: capabilities.compiler,
      subgroupSize: subgroups,
      kernels: [
        {
          family: "lane teams",
          variant: subgroups ? "subgroups" : "workgroup memory (portable)",
          reason: subgroupsReason,
        },
        ...Object.entries(fp8).map(([dtype, { module, reason }]) => ({
          family: `decoding of ${dtype}`,
          variant: module ?? "none",
          reason,
        })),
        ...this.choices,
      ],
      memory: { tensors: 0, bytes: 0 },
    };
  }

  async rounding(): Promise<Rounding> {
    this.#rounding ??= probeRounding(this.device, this.guard);
    try {
      return await this.#rounding;
    } catch (error) {
      this.#rounding = null; // a failure must not stay: the device may have been short of memory
      throw error;
    }
  }

  noteChoice(family: string, variant: string, reason: string): void {
    if (this.choices.some((choice) => choice.variant === variant)) return;
    this.choices.push({ family, variant, reason });
  }

  allocate(byteLength: number, label: string): GpuStorage {
    this.guard.check();
    return allocateStorage(this.device, byteLength, label);
  }

  borrow(buffer: GPUBuffer, byteOffset: number, byteLength: number): GpuStorage {
    this.guard.check();
    return borrowStorage(this.device, buffer, byteOffset, byteLength);
  }

  write(storage: GpuStorage, byteOffset: number, bytes: Uint8Array): void {
    upload(this.device, storage, byteOffset, bytes);
  }

  read(storage: GpuStorage): Promise<Uint8Array<ArrayBuffer>> {
    return this.readback.read(storage);
  }

  async attend(problem: AttentionProblem, operands: AttentionOperands): Promise<void> {
    this.guard.check();
    await runAttention(this, problem, operands);
  }

  prepare(): PreparedAttention {
    return new PreparedOnGpu(this);
  }

  async merge(problem: MergeProblem, operands: MergeOperands): Promise<void> {
    this.guard.check();
    await runMerge(this, problem, operands);
  }

  async append(problem: AppendProblem, operands: AppendOperands): Promise<void> {
    this.guard.check();
    await runAppend(this, problem, operands);
  }

  async convert(problem: ConvertProblem, operands: ConvertOperands): Promise<void> {
    this.guard.check();
    await runQuantize(this, problem, operands);
  }

  async copy(from: GpuStorage, to: GpuStorage): Promise<void> {
    this.guard.check();
    await this.guard.race(copyStorage(this.device, from, to));
  }

  async copyParts(
    from: GpuStorage,
    to: GpuStorage,
    parts: readonly CopiedPart[],
  ): Promise<void> {
    this.guard.check();
    await this.guard.race(copyParts(this.device, from, to, parts));
  }

  destroy(): void {
    this.guard.markDestroyed();
    this.ropeTables.destroy();
    this.readback.destroy();
    if (!this.options.isBorrowed) this.device.destroy();
  }
}

function adapterReport(info: GPUAdapterInfo | null): AdapterReport {
  return {
    vendor: info?.vendor ?? "",
    architecture: info?.architecture ?? "",
    device: info?.device ?? "",
    description: info?.description ?? "",
    isFallback: info?.isFallbackAdapter ?? false,
  };
}
