/**
 * Dispatches before they know their operands: what plans of attention become.
 *
 * @module
 */

import type { AttentionOperands } from "../backend.ts";
import type { GpuStorage } from "./buffers.ts";
import type { Window } from "./decode_windows.ts";
import type { Dispatch } from "./dispatch.ts";
import type { Kernel, KernelCache, KernelRequest } from "./kernels.ts";

/** An operand of the call, or a part of it. */
export interface OperandSlot {
  readonly operand: keyof AttentionOperands;
  readonly window?: Window;
}

/** A dispatch whose operands are open. */
export interface Template {
  readonly kernel: KernelRequest;
  /** In the order of the kernel's bindings. */
  readonly resources: readonly (GPUBufferBinding | OperandSlot)[];
  readonly grid: readonly [number, number];
}

/** What a dispatch of a plan is told beside the operands, and how much of k and v it is given. */
export interface KernelInputs {
  readonly params: Uint32Array<ArrayBuffer>;
  readonly tables: Uint32Array<ArrayBuffer>;
  /** The parts of k and v that are bound; null is all. */
  readonly windows: { readonly k: Window; readonly v: Window } | null;
  readonly grid: readonly [number, number];
}

/** What a kernel's parameters say that the plan does not. */
export interface InputOptions {
  readonly writeLse: boolean;
  /** Where the coarse turns begin in the table of turns. */
  readonly ropeCoarse: number;
}

/** Where results go. */
export interface TemplateResults {
  readonly out: GPUBufferBinding | OperandSlot;
  readonly lse: GPUBufferBinding | OperandSlot;
  /** Whether lse is written. */
  readonly writeLse: boolean;
}

/** Results that go to the call's operands. */
export function operandResults(writeLse: boolean): TemplateResults {
  return { out: { operand: "out" }, lse: { operand: "lse" }, writeLse };
}

/** The kernels of templates, compiled or found in the cache. */
export async function compileTemplates(
  cache: KernelCache,
  requests: Iterable<KernelRequest>,
): Promise<ReadonlyMap<KernelRequest, Kernel>> {
  const kernels = new Map<KernelRequest, Kernel>();
  for (const request of requests) {
    if (!kernels.has(request)) kernels.set(request, await cache.get(request));
  }
  return kernels;
}

/** Whether templates run the same kernels over the same memory, though with other grids maybe. */
export function isBoundAlike(a: readonly Template[], b: readonly Template[]): boolean {
  return a.length === b.length && a.every((template, i) => {
    const { kernel, resources } = b[i];
    return template.kernel.name === kernel.name &&
      template.kernel.caller?.key === kernel.caller?.key &&
      template.resources.every((resource, j) => isSameResource(resource, resources[j]));
  });
}

function isSameResource(
  a: GPUBufferBinding | OperandSlot,
  b: GPUBufferBinding | OperandSlot,
): boolean {
  if ("operand" in a) {
    return "operand" in b && a.operand === b.operand && a.window?.offset === b.window?.offset &&
      a.window?.size === b.window?.size;
  }
  return !("operand" in b) && a.buffer === b.buffer && a.offset === b.offset && a.size === b.size;
}

/** A template with its kernel and operands; `noLse` stands for lse where the caller wants none. */
export function bindTemplate(
  { resources, grid }: Template,
  kernel: Kernel,
  operands: AttentionOperands,
  noLse: GPUBufferBinding,
): Dispatch {
  return {
    kernel,
    resources: resources.map((resource) => {
      if (!("operand" in resource)) return resource;
      const storage = operands[resource.operand] as GpuStorage | null | undefined;
      return storage ? storage.window(resource.window) : noLse;
    }),
    grid,
  };
}
