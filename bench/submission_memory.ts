/**
 * What submissions leave behind in memory where nothing but WebGPU is used: WebGPU's objects for one
 * submission (encoder, pass, command buffer) go when the garbage collector comes, which does not see how
 * large they are.
 *
 *   deno run -A bench/submission_memory.ts [submissions] [--collect]
 *
 * `--collect` has garbage collected every 1000 submissions.
 *
 * @module
 */

import v8 from "node:v8";
import vm from "node:vm";

const COUNT = Number(Deno.args.find((arg) => !arg.startsWith("--")) ?? 100_000);
v8.setFlagsFromString("--expose-gc");
const collect: () => void = vm.runInNewContext("gc");

const adapter = await navigator.gpu.requestAdapter();
const device = await adapter!.requestDevice();
const module = device.createShaderModule({ code: "@compute @workgroup_size(1) fn main() {}" });
const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
for (let i = 0; i <= COUNT; i++) {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.dispatchWorkgroups(1);
  pass.end();
  device.queue.submit([encoder.finish()]);
  if (i % 50 === 0) await device.queue.onSubmittedWorkDone();
  if (i % 1000 === 0 && Deno.args.includes("--collect")) collect();
  if (i % Math.ceil(COUNT / 10) > 0) continue;
  const { rss, heapUsed } = Deno.memoryUsage();
  const [resident, heap] = [rss, heapUsed].map((bytes) => (bytes / 2 ** 20).toFixed(1));
  console.log(`${i} submissions: ${resident} MiB resident, ${heap} MiB of heap in use`);
}
device.destroy();
