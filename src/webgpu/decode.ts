/**
 * The decode family on WebGPU: planned dispatches of shaders/decode.wgsl, and the merge that ends them
 * where keys are split.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import type { AttentionOperands } from "../backend.ts";
import type { GpuContext } from "./context.ts";
import { type DecodePlan, planDecode } from "./decode_plan.ts";
import { longestRequest, paramWords, tableWords, withPageTable } from "./decode_tables.ts";
import { type Dispatch, submit } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";
import { type Memory, temporaryMemory } from "./memory.ts";
import { mergeResources } from "./merge.ts";
import { bindTemplate, operandResults, type Template, type TemplateResults } from "./templates.ts";

/** The compiled kernels of a plan. */
export interface DecodeKernels {
  readonly decode: Kernel;
  readonly merge: Kernel | null;
}

/** Whether the decode kernel can do it: one query a request, the last, and nothing hidden. */
export function isDecode(problem: AttentionProblem): boolean {
  const { requests, mask, variant, headDim, headDimV } = problem;
  if (mask !== null || variant !== null || headDim !== headDimV) return false;
  for (let at = 1; at < requests.length; at += REQUEST_WORDS) if (requests[at] !== 1) return false;
  return true;
}

/** Plans, compiles where needed, and submits a decode problem. */
export async function runDecode(
  context: GpuContext,
  problem: AttentionProblem,
  operands: AttentionOperands,
): Promise<void> {
  const plan = planDecode(problem, context.capabilities);
  const kernels = await compileDecode(context, plan);
  context.noteChoice("decode", kernels.decode.name, plan.reason);
  if (kernels.merge) context.noteChoice("merge", kernels.merge.name, "keys are split");
  if (plan.dispatches.length === 0) return;
  await submit(
    context,
    "decode",
    (temporary) => decodeDispatches(context, plan, kernels, problem, operands, temporary),
  );
}

/** Compiles a plan's kernels, or finds them in the cache. */
export async function compileDecode(
  { kernels }: GpuContext,
  { kernel, split }: DecodePlan,
): Promise<DecodeKernels> {
  const decode = await kernels.get(kernel);
  return { decode, merge: split && await kernels.get(split.merge.kernel) };
}

/** A plan's dispatches, bound to operands; new buffers are entered in `temporary`. */
export function decodeDispatches(
  context: GpuContext,
  plan: DecodePlan,
  kernels: DecodeKernels,
  problem: AttentionProblem,
  operands: AttentionOperands,
  temporary: GPUBuffer[],
): Dispatch[] {
  const memory = temporaryMemory(context.device, temporary);
  const compiled = new Map([[plan.kernel, kernels.decode]]);
  if (plan.split) compiled.set(plan.split.merge.kernel, kernels.merge!);
  // The layout is the same with and without lse; without it, nothing is written there.
  const noLse = memory.scratch("no lse", 16);
  return decodeTemplates(context, plan, problem, memory, operandResults(operands.lse !== null))
    .map((template) => bindTemplate(template, compiled.get(template.kernel)!, operands, noLse));
}

/** A plan's dispatches without their operands, and where their results go. */
export function decodeTemplates(
  { ropeTables }: GpuContext,
  plan: DecodePlan,
  problem: AttentionProblem,
  memory: Memory,
  { out, lse, writeLse }: TemplateResults,
): Template[] {
  const { numQoHeads, headDim, rope, pageTable, kvScales } = problem;
  const unused = memory.words("storage", "unused", new Uint32Array(4));
  const turns = rope && ropeTables.get(headDim, rope, longestRequest(problem));
  const pages = pageTable && !kvScales ? memory.words("storage", "page table", pageTable) : unused;

  const states = (plan.split?.states ?? 0) * numQoHeads;
  const partial = plan.split && {
    out: memory.scratch("partial out", states * headDim * 4),
    lse: memory.scratch("partial lse", states * 4),
  };
  const templates = plan.dispatches.map((dispatch): Template => {
    const params = paramWords(problem, plan, dispatch, {
      writeLse,
      ropeCoarse: turns?.coarse ?? 0,
    });
    const tables = tableWords(problem, dispatch.stretches);
    return {
      kernel: plan.kernel,
      resources: [
        memory.words("uniform", "params", params),
        memory.words("storage", "tables", withPageTable(tables, problem)),
        { operand: "q" },
        { operand: "k", window: dispatch.windows?.k },
        { operand: "v", window: dispatch.windows?.v },
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
