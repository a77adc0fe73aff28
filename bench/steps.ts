/**
 * What a step of decode costs the host: planned once, then thousands of steps in which every sequence
 * grows by a token, and what that leaves behind in memory.
 *
 *   deno run -A bench/steps.ts [steps]
 *
 * @module
 */

import { BatchDecodeWithPagedKvCache, openDevice } from "@kvasir/attention";

const STEPS = Number(globalThis.Deno?.args[0] ?? 10_000);
const BATCH = 64;
const PAGE_SIZE = 16;
const PAGES = 8; // of each sequence
const SIZES = { numQoHeads: 32, numKvHeads: 8, headDim: 128, pageSize: PAGE_SIZE };

using device = await openDevice({ backend: "webgpu" });
using q = device.empty([BATCH, 32, 128], "float16");
using cache = device.empty([BATCH * PAGES, 2, PAGE_SIZE, 8, 128], "float8_e4m3fn");
using out = device.empty([BATCH, 32, 128], "float16");
using decode = new BatchDecodeWithPagedKvCache(device, { kvLayout: "NHD" });
const indptr = Array.from({ length: BATCH + 1 }, (_, i) => i * PAGES);
const indices = Array.from({ length: BATCH * PAGES }, (_, i) => (i * 7) % (BATCH * PAGES));
const lastPageLen = new Array(BATCH).fill(1);
const plan = () =>
  decode.plan({
    ...SIZES,
    indptr,
    indices,
    lastPageLen,
    qDtype: "float16",
    kvDtype: "float8_e4m3fn",
  });
plan();
await decode.run(q, cache, { out });
await out.readBytes();

/** Host microseconds of each call, in order. */
const microseconds = { plan: [] as number[], update: [] as number[], run: [] as number[] };
async function timed(name: keyof typeof microseconds, work: () => void | Promise<unknown>) {
  const begin = performance.now();
  await work();
  microseconds[name].push(1000 * (performance.now() - begin));
}

const memory = () => Deno.memoryUsage().rss / 2 ** 20;
const grown: number[] = [];
for (let step = 0; step < STEPS; step++) {
  lastPageLen.fill(1 + step % PAGE_SIZE);
  // A page is full: a new plan, as if each sequence had got another page.
  if (step % PAGE_SIZE === 0) await timed("plan", plan);
  else await timed("update", () => decode.updateLastPageLen(lastPageLen));
  await timed("run", () => decode.run(q, cache, { out }));
  // The host must not be thousands of steps ahead.
  if (step % 50 === 49) await out.readBytes();
  if (step % Math.ceil(STEPS / 10) === 0) grown.push(memory());
}
await out.readBytes();
grown.push(memory());

console.log(device.report.description);
for (const [name, times] of Object.entries(microseconds)) {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))].toFixed(1);
  console.log(`  ${name}: median ${at(0.5)} us, 95 % below ${at(0.95)} us, ${times.length} times`);
}
console.log(`  resident: ${grown.map((mebibytes) => mebibytes.toFixed(0)).join(", ")} MiB`);
console.log(`  tensors: ${JSON.stringify(device.report.memory)}`);
