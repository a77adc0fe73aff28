/**
 * The prefill family on WebGPU: planned dispatches of shaders/prefill.wgsl, and the merge that ends
 * them where keys are split.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { AttentionOperands } from "../backend.ts";
import type { GpuContext } from "./context.ts";
import { longestRequest } from "./decode_tables.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";
import { type Memory, temporaryMemory } from "./memory.ts";
import { mergeResources } from "./merge.ts";
import { planPrefill, type PrefillPlan } from "./prefill_plan.ts";
import { paramWords, tableWords } from "./prefill_tables.ts";
import { bindTemplate, operandResults, type Template, type TemplateResults } from "./templates.ts";

/** The compiled kernels of a plan. */
export interface PrefillKernels {
  readonly prefill: Kernel;
  readonly merge: Kernel | null;
}

/** Plans, compiles where needed, and submits a prefill problem. */
export async function runPrefill(
  context: GpuContext,
  problem: AttentionProblem,
  operands: AttentionOperands,
): Promise<void> {
  const plan = planPrefill(problem, context.capabilities);
  const kernels = await compilePrefill(context, plan);
  context.noteChoice("prefill", kernels.prefill.name, plan.reason);
  if (kernels.merge) context.noteChoice("merge", kernels.merge.name, "keys are split");
  if (plan.dispatches.length === 0) return;
  await submit(
    context,
    "prefill",
    (temporary) => prefillDispatches(context, plan, kernels, problem, operands, temporary),
  );
}

/** Compiles a plan's kernels, or finds them in the cache. */
export async function compilePrefill(
  { kernels }: GpuContext,
  { kernel, split }: PrefillPlan,
): Promise<PrefillKernels> {
  const prefill = await kernels.get(kernel);
  return { prefill, merge: split && await kernels.get(split.merge.kernel) };
}

/** A plan's dispatches, bound to operands; new buffers are entered in `temporary`. */
export function prefillDispatches(
  context: GpuContext,
  plan: PrefillPlan,
  kernels: PrefillKernels,
  problem: AttentionProblem,
  operands: AttentionOperands,
  temporary: GPUBuffer[],
): Dispatch[] {
  const memory = temporaryMemory(context.device, temporary);
  const compiled = new Map([[plan.kernel, kernels.prefill]]);
  if (plan.split) compiled.set(plan.split.merge.kernel, kernels.merge!);
  // The layout is the same with and without lse; without it, nothing is written there.
  const noLse = memory.scratch("no lse", 16);
  return prefillTemplates(context, plan, problem, memory, operandResults(operands.lse !== null))
    .map((template) => bindTemplate(template, compiled.get(template.kernel)!, operands, noLse));
}

/** A plan's dispatches without their operands, and where their results go. */
export function prefillTemplates(
  { ropeTables }: GpuContext,
  plan: PrefillPlan,
  problem: AttentionProblem,
  memory: Memory,
  { out, lse, writeLse }: TemplateResults,
): Template[] {
  const { numQoHeads, headDim, headDimV, rope, pageTable, kvScales } = problem;
  const unused = memory.words("storage", "unused", new Uint32Array(4));
  const turns = rope && ropeTables.get(headDim, rope, longestRequest(problem));
  const pages = pageTable && !kvScales ? memory.words("storage", "page table", pageTable) : unused;

  const states = (plan.split?.states ?? 0) * numQoHeads;
  const partial = plan.split && {
    out: memory.scratch("partial out", states * headDimV * 4),
    lse: memory.scratch("partial lse", states * 4),
  };
  const templates = plan.dispatches.map((dispatch): Template => {
    const params = paramWords(problem, plan, dispatch, {
      writeLse,
      ropeCoarse: turns?.coarse ?? 0,
    });
    return {
      kernel: plan.kernel,
      resources: [
        memory.words("uniform", "params", params),
        memory.words("storage", "tables", tableWords(problem, plan, dispatch)),
        { operand: "q" },
        { operand: "k" },
        { operand: "v" },
        partial?.out ?? out,
        partial?.lse ?? lse,
        kvScales ? { operand: "kvScales" } : pages,
        turns ? { buffer: turns.buffer } : unused,
      ],
      grid: dispatch.grid,
    };
  });
  if (!plan.split || !partial) return templates;
  const { merge } = plan.split;
  const sources = { vA: partial.out, sA: partial.lse, vB: partial.out, sB: partial.lse };
  const resources = mergeResources(memory, merge, {
    ...sources,
    out,
    lse,
    writeLse,
    sinks: problem.sinks,
  });
  return [...templates, { kernel: merge.kernel, resources, grid: merge.grid }];
}
