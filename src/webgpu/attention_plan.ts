/**
 * Which kernel an attention problem is planned for: decode's, or prefill's, which does everything.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { Capabilities } from "./capabilities.ts";
import { isDecode } from "./decode.ts";
import { type DecodePlan, planDecode } from "./decode_plan.ts";
import type { KernelRequest } from "./kernels.ts";
import { planPrefill, type PrefillPlan } from "./prefill_plan.ts";

/** A plan of either family. */
export type AttentionPlan = DecodePlan | PrefillPlan;

/** What was planned, for what. */
export interface PlannedProblem {
  readonly problem: AttentionProblem;
  readonly plan: AttentionPlan;
}

/**
 * Plans a problem. Throws `LimitError`, or `ShaderError` where no exact way exists.
 *
 * @param before What was planned last for the same capabilities, of which the kernel may serve again.
 */
export function planAttention(
  problem: AttentionProblem,
  capabilities: Capabilities,
  before?: PlannedProblem,
): AttentionPlan {
  if (!isDecode(problem)) return planPrefill(problem, capabilities);
  const last = before?.plan.family === "decode"
    ? { problem: before.problem, plan: before.plan }
    : null;
  return planDecode(problem, capabilities, undefined, last);
}

/** Of each kernel of a plan: its family, and why it was chosen. */
export function reasonsOf(
  { family, kernel, reason, split }: AttentionPlan,
): Map<KernelRequest, readonly [family: string, reason: string]> {
  const reasons = new Map<KernelRequest, readonly [string, string]>([[kernel, [family, reason]]]);
  if (split) reasons.set(split.merge.kernel, ["merge", "keys are split"]);
  return reasons;
}
