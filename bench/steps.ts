/**
 * What a step of decode costs the host: planned once, then thousands of steps in which every sequence
 * grows by a token, and what that leaves behind in memory. Beside it the same WebGPU calls, made by
 * hand: what this runtime and driver cost anyway.
 *
 *   deno run -A bench/steps.ts [steps] [--idle]
 *
 * `--idle` has the GPU do nothing (dispatches of no workgroups): on a software adapter, which computes
 * on the host, only that times the host's own work.
 *
 * @module
 */

import v8 from "node:v8";
import vm from "node:vm";
import { BatchDecodeWithPagedKvCache, openDevice } from "@kvasir/attention";
import { type BareStep, bareStep } from "./step_calls.ts";

const STEPS = Number(Deno.args.find((arg) => !arg.startsWith("--")) ?? 10_000);
const BATCH = 64;
const PAGE_SIZE = 16;
const PAGES = 8; // of each sequence
const SIZES = { numQoHeads: 32, numKvHeads: 8, headDim: 128, pageSize: PAGE_SIZE };

v8.setFlagsFromString("--expose-gc");
const collect: () => void = vm.runInNewContext("gc");

using device = await openDevice({ backend: "webgpu" });
// Only now: opening a device tries kernels out.
if (Deno.args.includes("--idle")) {
  const { dispatchWorkgroups } = GPUComputePassEncoder.prototype;
  GPUComputePassEncoder.prototype.dispatchWorkgroups = function () {
    return dispatchWorkgroups.call(this, 0);
  };
}
using q = device.empty([BATCH, 32, 128], "float16");
using cache = device.empty([BATCH * PAGES, 2, PAGE_SIZE, 8, 128], "float8_e4m3fn");
using out = device.empty([BATCH, 32, 128], "float16");
using decode = new BatchDecodeWithPagedKvCache(device, { kvLayout: "NHD" });
const indptr = Array.from({ length: BATCH + 1 }, (_, i) => i * PAGES);
const indices = Array.from({ length: BATCH * PAGES }, (_, i) => (i * 7) % (BATCH * PAGES));
const lastPageLen: number[] = new Array(BATCH).fill(1);

const step = {
  /** A page is full: a new plan, as if each sequence had got another page. */
  plan() {
    lastPageLen.fill(1);
    indices.push(indices.shift()!);
    decode.plan({
      ...SIZES,
      indptr,
      indices,
      lastPageLen,
      qDtype: "float16",
      kvDtype: "float8_e4m3fn",
    });
  },
  update(turn: number) {
    lastPageLen.fill(1 + turn % PAGE_SIZE);
    decode.updateLastPageLen(lastPageLen);
  },
  run: () => decode.run(q, cache, { out }),
};

/** Host microseconds of the calls of one kind, in order; the list is there before it is filled. */
class Times {
  readonly #values = new Float64Array(STEPS);
  #count = 0;

  add(milliseconds: number): void {
    this.#values[this.#count++] = 1000 * milliseconds;
  }

  get list(): Float64Array {
    return this.#values.subarray(0, this.#count);
  }
}

/** What is timed. */
const KINDS = ["plan", "update", "run", "update + run"] as const;
type Kind = typeof KINDS[number];

function newTimes(): Readonly<Record<Kind, Times>> {
  const [plan, update, run, both] = KINDS.map(() => new Times());
  return { plan, update, run, "update + run": both };
}

/** Memory in MiB. */
interface Memory {
  readonly resident: number;
  readonly heap: number;
}

function memory(): Memory {
  const { rss, heapUsed } = Deno.memoryUsage();
  return { resident: rss / 2 ** 20, heap: heapUsed / 2 ** 20 };
}

/** Makes all steps, with plans where there are any; what memory was on the way. */
async function time(
  times: Readonly<Record<Kind, Times>>,
  plan: (() => void) | null,
  { update, run }: { update(turn: number): void; run(): void | Promise<unknown> },
): Promise<readonly Memory[]> {
  const course: Memory[] = [];
  for (let turn = 0; turn < STEPS; turn++) {
    const begin = performance.now();
    const isPlanned = plan !== null && turn % PAGE_SIZE === 0;
    if (isPlanned) plan();
    else update(turn);
    const middle = performance.now();
    await run();
    const end = performance.now();
    times[isPlanned ? "plan" : "update"].add(middle - begin);
    times.run.add(end - middle);
    if (!isPlanned) times["update + run"].add(end - begin);
    // The host must not be thousands of steps ahead.
    if (turn % 50 === 49) await out.readBytes();
    if (turn % Math.ceil(STEPS / 10) === 0) course.push(memory());
  }
  await out.readBytes();
  course.push(memory());
  return course;
}

function report(
  title: string,
  times: Readonly<Record<Kind, Times>>,
  course: readonly Memory[],
): void {
  console.log(title);
  for (const name of KINDS) {
    const { list } = times[name];
    if (list.length === 0) continue;
    const at = (values: Float64Array, share: number) =>
      values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))].toFixed(1);
    const last = list.slice(-Math.ceil(list.length / 4));
    console.log(
      `  ${name}: median ${at(list, 0.5)} us, 95 % below ${at(list, 0.95)} us, ${list.length} ` +
        `times; median of the last quarter ${at(last, 0.5)} us`,
    );
  }
  for (const name of ["resident", "heap"] as const) {
    console.log(`  ${name}: ${course.map((at) => at[name].toFixed(1)).join(", ")} MiB`);
  }
}

/** The heap without garbage, in bytes. */
async function heapLeft(): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, 20));
  collect();
  return Deno.memoryUsage().heapUsed;
}

step.plan();
await step.run();
await out.readBytes();
const ours = newTimes();
const before = await heapLeft();
const course = await time(ours, step.plan, step);
const left = (await heapLeft() - before) / STEPS;

const gpu = (device as unknown as { engine: { device: GPUDevice } }).engine.device;
const bare: BareStep = await bareStep(gpu, () => step.update(1), step.run);
const floor = newTimes();
const floorCourse = await time(floor, null, bare);

console.log(device.report.description);
report(`${STEPS} steps of ${BATCH} sequences`, ours, course);
console.log(`  heap after a collection: ${left.toFixed(1)} bytes a step more than before`);
report("the same WebGPU calls by hand, without plans", floor, floorCourse);
console.log(`tensors: ${JSON.stringify(device.report.memory)}`);
