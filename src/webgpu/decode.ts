/**
 * The decode family on WebGPU: one planned dispatch of shaders/decode.wgsl.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { AttentionOperands } from "../backend.ts";
import { type GpuStorage, smallBuffer } from "./buffers.ts";
import { type DecodeParams, type DecodePlan, planDecode } from "./decode_plan.ts";
import { inErrorScopes } from "./gpu_errors.ts";
import type { GpuContext } from "./context.ts";

/** Plans, compiles where needed, and submits a decode problem. */
export async function runDecode(
  context: GpuContext,
  problem: AttentionProblem,
  operands: AttentionOperands,
): Promise<void> {
  const { device, guard, kernels, capabilities, profiler } = context;
  const plan = planDecode(problem, capabilities);
  const kernel = await kernels.get(plan.kernel);
  context.noteChoice("decode", kernel.name, plan.reason);
  if (plan.params.numWork === 0) return;
  guard.check();
  const temporary: GPUBuffer[] = [];
  const timing = profiler?.begin(kernel.name);
  const { done } = inErrorScopes(device, kernel.name, () => {
    const params = smallBuffer(device, "uniform", "params", paramWords(plan, operands));
    temporary.push(params);
    const requests = smallBuffer(device, "storage", "requests", problem.requests);
    temporary.push(requests);
    // The layout is the same with and without lse; without it, nothing is written there.
    const noLse = operands.lse
      ? null
      : smallBuffer(device, "storage", "no lse", new Uint32Array(4));
    if (noLse) temporary.push(noLse);
    const resources = [
      { buffer: params },
      { buffer: requests },
      ...[operands.q, operands.k, operands.v, operands.out].map((s) => (s as GpuStorage).binding),
      noLse ? { buffer: noLse } : (operands.lse as GpuStorage).binding,
    ];
    const encoder = device.createCommandEncoder({ label: kernel.name });
    const pass = encoder.beginComputePass({ label: kernel.name, ...timing?.passDescriptor });
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(
      0,
      device.createBindGroup({
        label: kernel.name,
        layout: kernel.layout,
        entries: resources.map((resource, binding) => ({ binding, resource })),
      }),
    );
    pass.dispatchWorkgroups(...plan.grid);
    pass.end();
    timing?.resolve(encoder);
    device.queue.submit([encoder.finish()]);
  });
  // What is submitted keeps its memory until it has run.
  for (const buffer of temporary) buffer.destroy();
  await guard.race(done);
  timing?.report();
}

/** The words of `Params` in shaders/params.wgsl. */
function paramWords(
  { params }: DecodePlan,
  operands: AttentionOperands,
): Uint32Array<ArrayBuffer> {
  const { q, out, k, v, logitScale, outScale }: DecodeParams = params;
  const words = Uint32Array.of(
    params.numWork,
    params.headBlocks,
    params.numKvHeads,
    params.numQoHeads,
    params.group,
    operands.lse ? 1 : 0,
    ...[q.token, q.head, out.token, out.head],
    ...[k.page, k.token, k.head],
    ...[v.page, v.token, v.head],
    ...[0, 0],
  );
  new Float32Array(words.buffer).set([logitScale, outScale], words.length - 2);
  return words;
}
