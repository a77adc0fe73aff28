/**
 * What every kernel family needs of an open GPU device.
 *
 * @module
 */

import type { KernelChoice } from "../report.ts";
import type { Capabilities } from "./capabilities.ts";
import type { LossGuard } from "./gpu_errors.ts";
import type { KernelCache } from "./kernels.ts";
import type { Profiler } from "./profiler.ts";
import type { RopeTables } from "./rope_tables.ts";
import type { Rounding } from "./rounding_probe.ts";

/** An open GPU device with what is known of it. */
export interface GpuContext {
  readonly device: GPUDevice;
  readonly guard: LossGuard;
  readonly capabilities: Capabilities;
  readonly kernels: KernelCache;
  readonly ropeTables: RopeTables;
  /** How the device rounds; tested when it is first asked. */
  rounding(): Promise<Rounding>;
  /** Times dispatches; null where nobody asked or the device cannot. */
  readonly profiler: Profiler | null;
  /** Enters a kernel into the report, once. */
  noteChoice(family: string, variant: string, reason: string): void;
  /** The kernels noted so far. */
  readonly choices: readonly KernelChoice[];
}
