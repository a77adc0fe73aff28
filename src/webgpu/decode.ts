/**
 * The decode family on WebGPU: which problems are its own, and what the dispatches of
 * shaders/decode.wgsl are told. attention.ts has them done.
 *
 * @module
 */

import { type AttentionProblem, REQUEST_WORDS } from "../attention_problem.ts";
import type { DecodePlan } from "./decode_plan.ts";
import { paramWords, tableWords, withPageTable } from "./decode_tables.ts";
import type { InputOptions, KernelInputs } from "./templates.ts";

/** Whether the decode kernel can do it: one query a request, the last, and nothing hidden. */
export function isDecode(problem: AttentionProblem): boolean {
  const { requests, mask, variant, headDim, headDimV } = problem;
  if (mask !== null || variant !== null || headDim !== headDimV) return false;
  for (let at = 1; at < requests.length; at += REQUEST_WORDS) if (requests[at] !== 1) return false;
  return true;
}

/** What each dispatch of a plan is told. */
export function* decodeInputs(
  problem: AttentionProblem,
  plan: DecodePlan,
  options: InputOptions,
): Generator<KernelInputs> {
  for (const dispatch of plan.dispatches) {
    const { stretches, windows, grid } = dispatch;
    const params = paramWords(problem, plan, dispatch, options);
    const tables = withPageTable(tableWords(problem, stretches), problem);
    yield { params, tables, windows, grid };
  }
}
