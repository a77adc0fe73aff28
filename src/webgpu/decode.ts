/**
 * The decode family on WebGPU: one planned dispatch of shaders/decode.wgsl.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { AttentionOperands } from "../backend.ts";
import { type GpuStorage, smallBuffer } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import { type DecodeParams, planDecode } from "./decode_plan.ts";
import { type Dispatch, submit } from "./dispatch.ts";

/** Plans, compiles where needed, and submits a decode problem. */
export async function runDecode(
  context: GpuContext,
  problem: AttentionProblem,
  operands: AttentionOperands,
): Promise<void> {
  const plan = planDecode(problem, context.capabilities);
  const kernel = await context.kernels.get(plan.kernel);
  context.noteChoice("decode", kernel.name, plan.reason);
  if (plan.params.numWork === 0) return;
  await submit(context, kernel, (temporary): Dispatch => ({
    kernel,
    resources: decodeResources(context.device, plan.params, problem, operands, temporary),
    grid: plan.grid,
  }));
}

/** What shaders/decode.wgsl is bound to; new buffers are entered in `temporary`. */
export function decodeResources(
  device: GPUDevice,
  params: DecodeParams,
  problem: AttentionProblem,
  operands: AttentionOperands,
  temporary: GPUBuffer[],
): GPUBufferBinding[] {
  const small = (
    ...args: [kind: "uniform" | "storage", label: string, words: Uint32Array<ArrayBuffer>]
  ) => {
    const buffer = smallBuffer(device, ...args);
    temporary.push(buffer);
    return { buffer };
  };
  const { q, k, v, out, lse } = operands;
  return [
    small("uniform", "params", paramWords(params, lse !== null)),
    small("storage", "requests", problem.requests),
    ...[q, k, v, out].map((storage) => (storage as GpuStorage).binding),
    // The layout is the same with and without lse; without it, nothing is written there.
    lse ? (lse as GpuStorage).binding : small("storage", "no lse", new Uint32Array(4)),
  ];
}

/** The words of `Params` in shaders/params.wgsl. */
function paramWords(params: DecodeParams, writeLse: boolean): Uint32Array<ArrayBuffer> {
  const { q, out, k, v, logitScale, outScale } = params;
  const words = Uint32Array.of(
    params.numWork,
    params.headBlocks,
    params.numKvHeads,
    params.numQoHeads,
    params.group,
    writeLse ? 1 : 0,
    ...[q.token, q.head, out.token, out.head],
    ...[k.page, k.token, k.head],
    ...[v.page, v.token, v.head],
    ...[0, 0],
  );
  new Float32Array(words.buffer).set([logitScale, outScale], words.length - 2);
  return words;
}
