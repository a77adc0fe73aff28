/**
 * Compiled kernels: linked, compiled once, cached by what they were compiled for.
 *
 * @module
 */

import { ShaderError } from "../errors.ts";
import type { LossGuard } from "./gpu_errors.ts";
import { type LinkRequest, linkShader } from "./link.ts";
import { STAGE_COMPUTE } from "./flags.ts";
import type { CallerCode } from "./variant.ts";

/** What a binding of a kernel is; the position in the list is its number. */
export type BindingKind = "uniform" | "read" | "write";

/** A kernel to be compiled. */
export interface KernelRequest extends LinkRequest {
  /** Its name in reports, profiles and errors; the same sources and constants, the same name. */
  readonly name: string;
  readonly bindings: readonly BindingKind[];
  /** The caller's own WGSL, which is put in after linking. */
  readonly caller?: CallerCode;
}

/** Conditions `name_1`, `name_2` and `name_4`, of which one holds. */
export function oneOf(name: string, value: number): Record<string, boolean> {
  return Object.fromEntries([1, 2, 4].map((n) => [`${name}_${n}`, n === value]));
}

/** A compiled kernel. */
export interface Kernel {
  readonly name: string;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const BUFFER_TYPE: Readonly<Record<BindingKind, GPUBufferBindingType>> = {
  uniform: "uniform",
  read: "read-only-storage",
  write: "storage",
};

/** The kernels of one device. */
export class KernelCache {
  readonly #device: GPUDevice;
  readonly #guard: LossGuard;
  readonly #enableSubgroups: boolean;
  readonly #kernels = new Map<string, Promise<Kernel>>();

  /** @param enableSubgroups Whether the device's compiler demands `enable subgroups;`. */
  constructor(device: GPUDevice, guard: LossGuard, enableSubgroups: boolean) {
    this.#device = device;
    this.#guard = guard;
    this.#enableSubgroups = enableSubgroups;
  }

  /** The kernel for `request`. Throws `ShaderError` with the compiler's message. */
  get(request: KernelRequest): Promise<Kernel> {
    const key = `${request.name} ${request.caller?.key ?? ""}`;
    let kernel = this.#kernels.get(key);
    if (!kernel) {
      kernel = this.#compile(request);
      this.#kernels.set(key, kernel);
      // A failure must not stay: the device may have been short of memory.
      kernel.catch(() => this.#kernels.delete(key));
    }
    return kernel;
  }

  async #compile(request: KernelRequest): Promise<Kernel> {
    const conditions = { ...request.conditions, enable_subgroups: this.#enableSubgroups };
    const { name, bindings, caller } = request;
    const linked = await linkShader({ ...request, conditions });
    const code = caller?.insert(linked) ?? linked;
    return await compileKernel(this.#device, this.#guard, name, code, bindings, caller);
  }
}

/** Compiles WGSL whose entry point is `main`. Throws `ShaderError` with the compiler's message. */
export async function compileKernel(
  device: GPUDevice,
  guard: LossGuard,
  name: string,
  code: string,
  bindings: readonly BindingKind[],
  caller?: CallerCode,
): Promise<Kernel> {
  guard.check();
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code });
  const layout = device.createBindGroupLayout({
    label: name,
    entries: bindings.map((kind, binding) => ({
      binding,
      visibility: STAGE_COMPUTE,
      buffer: { type: BUFFER_TYPE[kind] },
    })),
  });
  const pipelineLayout = device.createPipelineLayout({ label: name, bindGroupLayouts: [layout] });
  const invalid = await guard.race(device.popErrorScope());
  if (invalid) {
    const error = caller && await callersError(module, guard, code, caller);
    throw error ?? shaderError(name, invalid.message);
  }
  try {
    const pipeline = await guard.race(device.createComputePipelineAsync({
      label: name,
      layout: pipelineLayout,
      compute: { module, entryPoint: "main" },
    }));
    return { name, pipeline, layout };
  } catch (error) {
    guard.check();
    throw shaderError(name, error instanceof Error ? error.message : String(error));
  }
}

/** What the compiler says of the caller's text; null where the fault lies elsewhere. */
async function callersError(
  module: GPUShaderModule,
  guard: LossGuard,
  code: string,
  caller: CallerCode,
): Promise<ShaderError | null> {
  const { messages } = await guard.race(module.getCompilationInfo());
  for (const { type, lineNum, message } of messages) {
    const error = type === "error" ? caller.explain(code, lineNum, message) : null;
    if (error) return error;
  }
  return null;
}

function shaderError(name: string, message: string): ShaderError {
  return new ShaderError(`kernel ${name}`, {
    got: `the compiler's message: ${message.trim()}`,
    expected: "a shader that compiles",
    hint: "This is a fault of the library or the driver; please report it with device.report.",
  });
}
