/**
 * Planned work on WebGPU: attention by the kernel that suits it, or levels of attention with the merges
 * of their states.
 *
 * @module
 */

import { rowsOf } from "../attention_problem.ts";
import type { PlannedWork } from "../backend.ts";
import { attentionTemplates } from "./attention.ts";
import { planAttention, type PlannedProblem, reasonsOf } from "./attention_plan.ts";
import type { Capabilities } from "./capabilities.ts";
import type { GpuContext } from "./context.ts";
import type { DecodePlan } from "./decode_plan.ts";
import type { KernelRequest } from "./kernels.ts";
import type { Memory } from "./memory.ts";
import { mergeResources } from "./merge.ts";
import { type MergePlan, planMerge } from "./merge_plan.ts";
import { operandResults, type Template, type TemplateResults } from "./templates.ts";

/** All plans of some work. */
export interface WorkPlan {
  readonly family: string;
  readonly levels: readonly PlannedProblem[];
  /** Merge i joins the states of levels 0 to i with those of level i + 1. */
  readonly merges: readonly MergePlan[];
  /** The plan where it is decode alone, whose lengths may change. */
  readonly decode: DecodePlan | null;
  /** Of each kernel: its family, and why it was chosen. */
  readonly reasons: ReadonlyMap<KernelRequest, readonly [family: string, reason: string]>;
}

/**
 * Plans work. Throws `LimitError`, or `ShaderError` where no exact way exists.
 *
 * @param before What was planned last for the same capabilities, of which the kernels may serve again.
 */
export function planWork(
  { levels, merged }: PlannedWork,
  capabilities: Capabilities,
  before?: WorkPlan,
): WorkPlan {
  const plans = levels.map((problem, i): PlannedProblem => ({
    problem,
    plan: planAttention(problem, capabilities, before?.levels[i]),
  }));
  const merges = levels.slice(1).map((problem, i) => {
    const isLast = i === levels.length - 2;
    return planMerge(
      {
        numRows: rowsOf(problem),
        numHeads: problem.numQoHeads,
        headDim: problem.headDimV,
        vDtype: "float32",
        outDtype: isLast ? merged!.outDtype : "float32",
        rows: Uint32Array.from({ length: 4 * rowsOf(problem) }, (_, j) => j % 2 ? 1 : j >> 2),
      },
      capabilities,
      { lseScale: isLast ? merged!.lseScale : 1 },
    );
  });
  const reasons = new Map(plans.flatMap(({ plan }) => [...reasonsOf(plan)]));
  for (const { kernel } of merges) reasons.set(kernel, ["merge", "levels are merged"]);
  const [{ plan: first }] = plans;
  return {
    family: merged ? "cascade" : first.family,
    levels: plans,
    merges,
    decode: !merged && first.family === "decode" ? first : null,
    reasons,
  };
}

/** The dispatches of planned work. lse is always written: a run with it and one without are the same. */
export function workTemplates(
  context: GpuContext,
  { levels, merges }: WorkPlan,
  memory: Memory,
): Template[] {
  const templatesOf = ({ problem, plan }: PlannedProblem, results: TemplateResults) =>
    attentionTemplates(context, plan, problem, memory, results);
  if (merges.length === 0) return templatesOf(levels[0], operandResults(true));
  const { numQoHeads, headDimV } = levels[0].problem;
  const states = rowsOf(levels[0].problem) * numQoHeads;
  const state = (name: string) => ({
    out: memory.scratch(`out of ${name}`, states * headDimV * 4),
    lse: memory.scratch(`lse of ${name}`, states * 4),
    writeLse: true,
  });
  const templates: Template[] = [];
  let joined = state("level 0");
  templates.push(...templatesOf(levels[0], joined));
  merges.forEach((merge, i) => {
    const next = state(`level ${i + 1}`);
    templates.push(...templatesOf(levels[i + 1], next));
    const isLast = i === merges.length - 1;
    const result = isLast ? operandResults(true) : state(`levels up to ${i + 1}`);
    templates.push({
      kernel: merge.kernel,
      resources: mergeResources(memory, merge, {
        vA: joined.out,
        sA: joined.lse,
        vB: next.out,
        sB: next.lse,
        ...result,
      }),
      grid: merge.grid,
    });
    if (!isLast) joined = result as typeof joined;
  });
  return templates;
}
