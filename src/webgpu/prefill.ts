/**
 * The prefill family on WebGPU: what the dispatches of shaders/prefill.wgsl are told. attention.ts has
 * them done.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { PrefillPlan } from "./prefill_plan.ts";
import { paramWords, tableWords } from "./prefill_tables.ts";
import type { InputOptions, KernelInputs } from "./templates.ts";

/** What each dispatch of a plan is told. */
export function* prefillInputs(
  problem: AttentionProblem,
  plan: PrefillPlan,
  options: InputOptions,
): Generator<KernelInputs> {
  for (const dispatch of plan.dispatches) {
    const params = paramWords(problem, plan, dispatch, options);
    const tables = tableWords(problem, plan, dispatch);
    yield { params, tables, windows: null, grid: dispatch.grid };
  }
}
