/**
 * Attention on WebGPU: planned dispatches of shaders/decode.wgsl or shaders/prefill.wgsl, and the merge
 * that ends them where keys are split.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { AttentionOperands } from "../backend.ts";
import { type AttentionPlan, planAttention, reasonsOf } from "./attention_plan.ts";
import type { GpuContext } from "./context.ts";
import { decodeInputs } from "./decode.ts";
import { longestRequest } from "./decode_tables.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel, KernelRequest } from "./kernels.ts";
import { type Memory, temporaryMemory } from "./memory.ts";
import { mergeResources } from "./merge.ts";
import { prefillInputs } from "./prefill.ts";
import {
  bindTemplate,
  compileTemplates,
  type InputOptions,
  type KernelInputs,
  operandResults,
  type Template,
  type TemplateResults,
} from "./templates.ts";

/** The compiled kernels of a plan, by what was compiled. */
export type AttentionKernels = ReadonlyMap<KernelRequest, Kernel>;

/** Plans, compiles where needed, and submits a problem. */
export async function runAttention(
  context: GpuContext,
  problem: AttentionProblem,
  operands: AttentionOperands,
): Promise<void> {
  const plan = planAttention(problem, context.capabilities);
  const kernels = await compileAttention(context, plan);
  for (const [kernel, [family, reason]] of reasonsOf(plan)) {
    context.noteChoice(family, kernels.get(kernel)!.name, reason);
  }
  if (plan.dispatches.length === 0) return;
  await submit(
    context,
    plan.family,
    (temporary) => attentionDispatches(context, plan, kernels, problem, operands, temporary),
  );
}

/** Compiles a plan's kernels, or finds them in the cache. */
export function compileAttention(
  { kernels }: GpuContext,
  plan: AttentionPlan,
): Promise<AttentionKernels> {
  return compileTemplates(kernels, reasonsOf(plan).keys());
}

/** A plan's dispatches, bound to operands; new buffers are entered in `temporary`. */
export function attentionDispatches(
  context: GpuContext,
  plan: AttentionPlan,
  kernels: AttentionKernels,
  problem: AttentionProblem,
  operands: AttentionOperands,
  temporary: GPUBuffer[],
): Dispatch[] {
  const memory = temporaryMemory(context.device, temporary);
  // The layout is the same with and without lse; without it, nothing is written there.
  const noLse = memory.scratch("no lse", 16);
  return attentionTemplates(context, plan, problem, memory, operandResults(operands.lse !== null))
    .map((template) => bindTemplate(template, kernels.get(template.kernel)!, operands, noLse));
}

/** A plan's dispatches without their operands, and where their results go. */
export function attentionTemplates(
  { ropeTables }: GpuContext,
  plan: AttentionPlan,
  problem: AttentionProblem,
  memory: Memory,
  { out, lse, writeLse }: TemplateResults,
): Template[] {
  const { numQoHeads, headDim, headDimV, rope, pageTable, kvScales } = problem;
  const { kernel, split } = plan;
  const unused = memory.words("storage", "unused", new Uint32Array(4));
  const turns = rope && ropeTables.get(headDim, rope, longestRequest(problem));
  const pages = pageTable && !kvScales ? memory.words("storage", "page table", pageTable) : unused;
  const states = (split?.states ?? 0) * numQoHeads;
  const partial = split && {
    out: memory.scratch("partial out", states * headDimV * 4),
    lse: memory.scratch("partial lse", states * 4),
  };
  const templates: Template[] = [];
  const options = { writeLse, ropeCoarse: turns?.coarse ?? 0 };
  for (const { params, tables, windows, grid } of inputsOf(problem, plan, options)) {
    templates.push({
      kernel,
      resources: [
        memory.words("uniform", "params", params),
        memory.words("storage", "tables", tables),
        { operand: "q" },
        { operand: "k", window: windows?.k },
        { operand: "v", window: windows?.v },
        partial?.out ?? out,
        partial?.lse ?? lse,
        kvScales ? { operand: "kvScales" } : pages,
        turns ? { buffer: turns.buffer } : unused,
      ],
      grid,
    });
  }
  if (!split || !partial) return templates;
  const { merge } = split;
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

function inputsOf(
  problem: AttentionProblem,
  plan: AttentionPlan,
  options: InputOptions,
): Iterable<KernelInputs> {
  return plan.family === "decode"
    ? decodeInputs(problem, plan, options)
    : prefillInputs(problem, plan, options);
}
