/**
 * The one place where the bench meets the planning of decode: from a problem and its operands to the
 * dispatches of one call, whatever their number.
 *
 * @module
 */

import type { AttentionProblem } from "../../src/attention_problem.ts";
import type { AttentionOperands } from "../../src/backend.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { attentionDispatches, compileAttention } from "../../src/webgpu/attention.ts";
import { planDecode } from "../../src/webgpu/decode_plan.ts";
import type { Dispatch } from "../../src/webgpu/dispatch.ts";
import type { Tuning } from "./family.ts";

/** The dispatches of one call; buffers that live as long as these are entered in `temporary`. */
export async function decodeCall(
  backend: WebGpuBackend,
  problem: AttentionProblem,
  operands: AttentionOperands,
  temporary: GPUBuffer[],
  tuning?: Tuning,
): Promise<Dispatch[]> {
  const plan = planDecode(problem, backend.capabilities, tuning);
  const kernels = await compileAttention(backend, plan);
  return attentionDispatches(backend, plan, kernels, problem, operands, temporary);
}
