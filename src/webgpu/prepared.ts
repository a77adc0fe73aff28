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
import { type BoundDispatch, groupOf, recordPass, submit, submitQuickly } from "./dispatch.ts";
import type { Kernel } from "./kernels.ts";
import { ReusedMemory } from "./memory.ts";
import { bindTemplate, compileTemplates, isBoundAlike, type Template } from "./templates.ts";
import { planWork, type WorkPlan, workTemplates } from "./work_plan.ts";

/** Operands whose bind groups are kept: one for each layer of a model, say. */
const MOST_BOUND = 128;

/** What is planned, with the memory that it is written to. */
interface Planned {
  readonly plans: WorkPlan;
  readonly problem: AttentionProblem;
  readonly memory: ReusedMemory;
  readonly templates: readonly Template[];
  readonly noLse: GPUBufferBinding;
  readonly kernels: PlannedKernels;
  /** Decode's plan, whose lengths may change. */
  readonly decode: DecodePlan | null;
  /** Bind groups by their operands. */
  readonly bound: Map<string, Bound>;
}

/** The kernels of templates, one each. */
interface PlannedKernels {
  /** Rejects where one does not compile, or there is no memory for the plan. */
  readonly pending: Promise<readonly Kernel[]>;
  /** Null until they are known to be there. */
  ready: readonly Kernel[] | null;
}

/** The bind groups of templates, one each. */
interface Bound {
  readonly groups: readonly GPUBindGroup[];
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
    const before = this.#planned;
    const plans = planWork(work, context.capabilities, before?.plans);
    const memory = this.#freeMemory();
    memory.begin();
    const [problem] = work.levels;
    const noLse = memory.scratch(
      "lse that nobody reads",
      4 * rowsOf(problem) * problem.numQoHeads,
    );
    const templates = workTemplates(context, plans, memory);
    // Most plans of a token loop have the kernels and the buffers of the plan before.
    const isAlike = before?.kernels.ready && before.noLse.buffer === noLse.buffer &&
      isBoundAlike(before.templates, templates);
    const { kernels, bound } = isAlike ? before : {
      kernels: this.#compile(templates, plans, memory.ready),
      bound: new Map<string, Bound>(),
    };
    const { decode } = plans;
    this.#planned = { plans, problem, memory, templates, noLse, kernels, decode, bound };
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
      const tables = planned.templates[i].resources[1] as GPUBufferBinding;
      planned.memory.rewrite(tables, tableWords(problem, stretches));
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
    // Where kernels are there, nothing is waited for: work is submitted in the order of calls.
    const kernels = planned.kernels.ready ?? await planned.kernels.pending;
    context.guard.check();
    if (planned.templates.length === 0) return;
    const key = keyOf(operands);
    const known = planned.bound.get(key);
    if (known?.isProven && !encoder && !context.profiler && isOurs(operands)) {
      submitQuickly(context, planned.plans.family, dispatchesOf(planned, kernels, known));
      return;
    }
    // Bind groups are made within the error scopes of a submission where there is one.
    const bind = () => {
      const bound = planned.bound.get(key) ?? this.#bind(planned, key, kernels, operands);
      return dispatchesOf(planned, kernels, bound);
    };
    if (encoder) {
      recordPass(context.device, encoder, bind(), {});
      return;
    }
    await submit(context, planned.plans.family, bind);
    const proven = planned.bound.get(key);
    if (proven) proven.isProven = true;
  }

  #bind(
    { bound, templates, noLse }: Planned,
    key: string,
    kernels: readonly Kernel[],
    operands: AttentionOperands,
  ): Bound {
    if (bound.size >= MOST_BOUND) bound.clear();
    const { device } = this.#context;
    const groups = templates.map((template, i) =>
      groupOf(device, bindTemplate(template, kernels[i], operands, noLse))
    );
    const made = { groups, isProven: false };
    bound.set(key, made);
    return made;
  }

  /** Compiles, and waits for memory: what a run needs. */
  #compile(
    templates: readonly Template[],
    { reasons }: WorkPlan,
    memory: Promise<void>,
  ): PlannedKernels {
    const compile = async () => {
      const requests = templates.map(({ kernel }) => kernel);
      const compiled = await compileTemplates(this.#context.kernels, requests);
      await memory;
      for (const [request, { name }] of compiled) {
        const [family, reason] = reasons.get(request)!;
        this.#context.noteChoice(family, name, reason);
      }
      return kernels.ready = requests.map((request) => compiled.get(request)!);
    };
    const kernels: PlannedKernels = { pending: compile(), ready: null };
    // Whoever runs hears of a failure; nobody may.
    kernels.pending.catch(() => {});
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

/** By which bind groups are found again. */
function keyOf(operands: AttentionOperands): string {
  let key = "";
  for (const storage of listOf(operands)) key += storage?.name ?? "-;";
  return key;
}

/** The operands in one order. */
function listOf(operands: AttentionOperands): readonly (GpuStorage | null | undefined)[] {
  const { q, k, v, kvScales, out, lse } = operands;
  return [q, k, v, kvScales, out, lse] as (GpuStorage | null | undefined)[];
}

/** The templates of a plan with their kernels and bind groups. */
function dispatchesOf(
  { templates }: Planned,
  kernels: readonly Kernel[],
  { groups }: Bound,
): readonly BoundDispatch[] {
  return templates.map(({ grid }, i) => ({ kernel: kernels[i], group: groups[i], grid }));
}
