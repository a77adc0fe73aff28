/**
 * Attention that is planned once and runs often on WebGPU: tables, scratch and bind groups are kept, so
 * that a run only records.
 *
 * @module
 */

import { type AttentionProblem, rowsOf } from "../attention_problem.ts";
import type { AttentionOperands, PlannedWork, PreparedAttention, PreparedRun } from "../backend.ts";
import type { GpuStorage } from "./buffers.ts";
import type { GpuContext } from "./context.ts";
import type { DecodePlan } from "./decode_plan.ts";
import { tableWords, withLengths } from "./decode_tables.ts";
import { type Dispatch, groupOf, recordPass, submit, submitQuickly } from "./dispatch.ts";
import type { Kernel, KernelRequest } from "./kernels.ts";
import { ReusedMemory } from "./memory.ts";
import { bindTemplate, compileTemplates, type Template } from "./templates.ts";
import { planWork, type WorkPlan, workTemplates } from "./work_plan.ts";

/** Operands whose bind groups are kept: one for each layer of a model, say. */
const MOST_BOUND = 128;

/** What is planned, with the memory that it is written to. */
interface Planned {
  readonly family: string;
  readonly problem: AttentionProblem;
  readonly memory: ReusedMemory;
  readonly templates: readonly Template[];
  readonly noLse: GPUBufferBinding;
  readonly kernels: Promise<ReadonlyMap<KernelRequest, Kernel>>;
  /** Decode's plan, whose lengths may change. */
  readonly decode: DecodePlan | null;
  /** Dispatches with their bind groups, by their operands. */
  readonly bound: Map<string, Bound>;
}

/** Dispatches with their bind groups. */
interface Bound {
  readonly dispatches: readonly Dispatch[];
  /** Whether they were submitted once within error scopes, and nothing was wrong. */
  isProven: boolean;
}

/** Planned attention on a GPU. */
export class PreparedOnGpu implements PreparedAttention {
  readonly #context: GpuContext;
  #planned: Planned | null = null;
  /** Runs under way by the memory that they read; memory that is no longer planned goes with its last. */
  readonly #uses = new Map<ReusedMemory, number>();

  constructor(context: GpuContext) {
    this.#context = context;
  }

  plan(work: PlannedWork): void {
    const context = this.#context;
    context.guard.check();
    const plans = planWork(work, context.capabilities);
    const memory = this.#freeMemory();
    memory.begin();
    const [problem] = work.levels;
    const noLse = memory.scratch(
      "lse that nobody reads",
      4 * rowsOf(problem) * problem.numQoHeads,
    );
    const templates = workTemplates(context, plans, memory);
    const kernels = this.#compile(templates, plans, memory.ready);
    // Whoever runs hears of a failure; nobody may.
    kernels.catch(() => {});
    const bound = new Map<string, Bound>();
    const { family, decode } = plans;
    this.#planned = { family, problem, memory, templates, noLse, kernels, decode, bound };
  }

  update(problem: AttentionProblem): void {
    this.#context.guard.check();
    const planned = this.#planned!;
    const moved = !this.#isUsed(planned.memory) && planned.decode &&
      withLengths(planned.problem, problem, planned.decode);
    if (!moved) {
      this.plan({ levels: [problem], merged: null });
      return;
    }
    // Nothing but the ends of stretches: tables are written anew, and all else stays.
    moved.dispatches.forEach(({ stretches }, i) => {
      const { buffer } = planned.templates[i].resources[1] as GPUBufferBinding;
      this.#context.device.queue.writeBuffer(buffer, 0, tableWords(problem, stretches));
    });
    this.#planned = { ...planned, problem, decode: moved };
  }

  begin(): PreparedRun {
    const planned = this.#planned!;
    const { memory } = planned;
    this.#uses.set(memory, (this.#uses.get(memory) ?? 0) + 1);
    return {
      run: (operands, encoder) => this.#run(planned, operands, encoder),
      end: () => {
        const uses = this.#uses.get(memory)! - 1;
        if (uses > 0) this.#uses.set(memory, uses);
        else this.#uses.delete(memory);
        if (uses === 0 && this.#planned?.memory !== memory) memory.destroy();
      },
    };
  }

  release(): void {
    const memory = this.#planned?.memory;
    this.#planned = null;
    if (memory && !this.#isUsed(memory)) memory.destroy();
  }

  async #run(
    planned: Planned,
    operands: AttentionOperands,
    encoder: GPUCommandEncoder | null,
  ): Promise<void> {
    const context = this.#context;
    const key = keyOf(operands);
    const known = planned.bound.get(key);
    if (known?.isProven && !encoder && !context.profiler && isOurs(operands)) {
      submitQuickly(context, planned.family, known.dispatches);
      return;
    }
    const kernels = await planned.kernels;
    context.guard.check();
    if (planned.templates.length === 0) return;
    // Bind groups are made within the error scopes of a submission where there is one.
    const bind = () => this.#bind(planned, key, kernels, operands);
    if (encoder) {
      recordPass(context.device, encoder, bind().dispatches, {});
      return;
    }
    await submit(context, planned.family, () => bind().dispatches);
    const proven = planned.bound.get(key);
    if (proven) proven.isProven = true;
  }

  #bind(
    { bound, templates, noLse }: Planned,
    key: string,
    kernels: ReadonlyMap<KernelRequest, Kernel>,
    operands: AttentionOperands,
  ): Bound {
    const known = bound.get(key);
    if (known) return known;
    if (bound.size >= MOST_BOUND) bound.clear();
    const { device } = this.#context;
    const dispatches = templates
      .map((template) => bindTemplate(template, kernels, operands, noLse))
      .map((dispatch) => ({ ...dispatch, group: groupOf(device, dispatch) }));
    const made = { dispatches, isProven: false };
    bound.set(key, made);
    return made;
  }

  /** Compiles, and waits for memory: what a run needs. */
  async #compile(
    templates: readonly Template[],
    { reasons }: WorkPlan,
    memory: Promise<void>,
  ): Promise<ReadonlyMap<KernelRequest, Kernel>> {
    const requests = templates.map(({ kernel }) => kernel);
    const kernels = await compileTemplates(this.#context.kernels, requests);
    await memory;
    for (const [request, { name }] of kernels) {
      const [family, reason] = reasons.get(request)!;
      this.#context.noteChoice(family, name, reason);
    }
    return kernels;
  }

  /** The memory of the plan before, unless a run still reads it. */
  #freeMemory(): ReusedMemory {
    const memory = this.#planned?.memory;
    return memory && !this.#isUsed(memory) ? memory : new ReusedMemory(this.#context.device);
  }

  #isUsed(memory: ReusedMemory): boolean {
    return this.#uses.has(memory);
  }
}

/** Whether no buffer is the caller's, who may destroy it: a submission would fail then, unheard. */
function isOurs(operands: AttentionOperands): boolean {
  return listOf(operands).every((storage) => !storage || storage.isOwned);
}

/** The operands in one order. */
function listOf(operands: AttentionOperands): readonly (GpuStorage | null | undefined)[] {
  const { q, k, v, kvScales, out, lse } = operands;
  return [q, k, v, kvScales, out, lse] as (GpuStorage | null | undefined)[];
}

/** Numbers of buffers, by which bind groups are found again. */
const ids = new WeakMap<GPUBuffer, number>();
let nextId = 0;

function keyOf(operands: AttentionOperands): string {
  let key = "";
  for (const storage of listOf(operands)) {
    if (!storage) {
      key += "-;";
      continue;
    }
    const { buffer, byteOffset, byteLength } = storage;
    let id = ids.get(buffer);
    if (id === undefined) ids.set(buffer, id = nextId++);
    key += `${id},${byteOffset},${byteLength};`;
  }
  return key;
}
