/**
 * What planned calls do at run: check the tensors against the plan, find or make the results, and hand
 * over to what the backend has prepared.
 *
 * @module
 */

import type { AttentionWithLse } from "./attend.ts";
import type { TensorSpec } from "./attention_shapes.ts";
import { checkReturnLse } from "./attention_options.ts";
import type { AttentionProblem } from "./attention_problem.ts";
import type { PlannedWork, PreparedAttention, Storage } from "./backend.ts";
import { KvasirDevice } from "./device.ts";
import { DestroyedError, DeviceMismatchError, OptionError, PlanError } from "./errors.ts";
import { checkNames } from "./option_checks.ts";
import type { RunOptions } from "./planned_options.ts";
import { checkPlanned, type PlannedTensors } from "./plan_checks.ts";
import { show } from "./shape.ts";
import { asDeviceTensor, type DeviceTensor, type Tensor, useTensors } from "./tensor.ts";

const RUN_OPTIONS = ["kvScales", "returnLse", "out", "lse", "encoder"];

/** A tensor with the name that errors give it. */
export type NamedTensor = readonly [name: string, tensor: DeviceTensor];

/** One run of a plan: its inputs are checked. */
export interface PlannedRun {
  /** q first. */
  readonly inputs: readonly NamedTensor[];
  /** Which of the inputs' storages are k and v. */
  readonly k: number;
  readonly v: number;
  /** And which are scales of tokens, if any. */
  readonly kvScales: number | null;
  /** What the results are. */
  readonly tensors: PlannedTensors<"out" | "lse">;
  readonly hasQueries: boolean;
}

/** Planned attention of one object of the caller's. */
export class PlannedAttention {
  readonly device: KvasirDevice;
  readonly #prepared: PreparedAttention;
  #isPlanned = false;
  #destroyed = false;

  /** Throws `OptionError` where `device` is none. */
  constructor(device: unknown) {
    if (!(device instanceof KvasirDevice)) {
      throw new OptionError("device", {
        got: show(device),
        expected: "a device",
        hint: "Open one with openDevice().",
      });
    }
    this.device = device;
    this.#prepared = device.engine.prepare();
  }

  /** Takes a problem in; when it throws, an earlier one stays. */
  plan(problem: AttentionProblem): void {
    this.planWork({ levels: [problem], merged: null });
  }

  /** The same for any work. */
  planWork(work: PlannedWork): void {
    this.#checkAlive("plan");
    this.#prepared.plan(work);
    this.#isPlanned = true;
  }

  /** The same problem with other lengths. */
  update(problem: AttentionProblem): void {
    this.#checkAlive("plan");
    this.#prepared.update(problem);
  }

  /** Throws `PlanError` before the first plan. */
  checkPlanned(subject: string): void {
    this.#checkAlive(subject);
    if (this.#isPlanned) return;
    throw new PlanError(subject, {
      got: "no plan",
      expected: "a call of plan() before",
      hint: "Plan once, then run as often as the sizes stay the same.",
    });
  }

  /** An input that is a tensor of this device. */
  input(name: string, value: unknown): NamedTensor {
    const tensor = asDeviceTensor(name, value);
    if (tensor.device === this.device) return [name, tensor];
    throw new DeviceMismatchError(name, {
      got: `a tensor of another device (${tensor.device.backend})`,
      expected: `the plan's device (${this.device.backend})`,
      hint: "Make all tensors of a call with the same device.",
    });
  }

  /**
   * The input of tokens' scales, where the plan is for some, else none. Throws `PlanError` where the
   * plan and what is given do not agree.
   */
  scalesInput(given: unknown, problem: Pick<AttentionProblem, "kvScales">): readonly NamedTensor[] {
    const isPlanned = problem.kvScales !== null;
    if (isPlanned && given !== undefined) return [this.input("options.kvScales", given)];
    if (!isPlanned && given === undefined) return [];
    throw new PlanError("options.kvScales", {
      got: given === undefined ? "no scales" : "scales of tokens",
      expected: isPlanned ? 'a tensor, by the plan\'s kvScales: "token"' : "none, by the plan",
      hint:
        'plan({ kvScales: "token" }) is for a cache with scales of tokens, and run then needs them.',
    });
  }

  /** Computes or records one run. */
  async run(run: PlannedRun, options: RunOptions): Promise<Tensor | AttentionWithLse> {
    const { inputs, tensors } = run;
    checkNames(options, RUN_OPTIONS);
    const returnLse = checkReturnLse(options);
    if (options.lse !== undefined && !returnLse) {
      throw new OptionError("options.lse", {
        got: "a tensor without returnLse",
        expected: "returnLse: true",
        hint: "lse is computed only where it is asked for.",
      });
    }
    const encoder = this.#checkEncoder(options.encoder);
    const givenOut = this.#given("out", options.out, tensors.out);
    const givenLse = this.#given("lse", options.lse, tensors.lse);
    const made: DeviceTensor[] = [];
    const make = ({ shape, dtype }: TensorSpec) => {
      const tensor = this.device.empty(shape, dtype);
      made.push(tensor);
      return tensor;
    };
    const turn = this.#prepared.begin();
    try {
      const out = givenOut ?? make(tensors.out);
      const lse = returnLse ? givenLse ?? make(tensors.lse) : null;
      const all: NamedTensor[] = [...inputs, ["out", out]];
      if (lse) all.push(["lse", lse]);
      await useTensors(all, async (storages) => {
        checkApart(all, storages, inputs.length);
        if (!run.hasQueries) return;
        const operands = {
          q: storages[0],
          k: storages[run.k],
          v: storages[run.v],
          kvScales: run.kvScales === null ? undefined : storages[run.kvScales],
          out: storages[inputs.length],
          lse: lse && storages[inputs.length + 1],
        };
        await turn.run(operands, encoder);
      });
      return lse ? { out, lse } : out;
    } catch (error) {
      for (const tensor of made) tensor.destroy();
      throw error;
    } finally {
      turn.end();
    }
  }

  /** Gives memory back, as soon as no run needs it. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#prepared.release();
  }

  /** A result of the caller's that fits the plan; null where a new one is wanted. */
  #given(name: string, value: unknown, planned: TensorSpec): DeviceTensor | null {
    if (value === undefined) return null;
    const [, tensor] = this.input(name, value);
    checkPlanned(name, tensor, planned);
    return tensor;
  }

  #checkEncoder(value: unknown): GPUCommandEncoder | null {
    if (value === undefined) return null;
    if (this.device.backend !== "webgpu") {
      throw new OptionError("options.encoder", {
        got: "an encoder on the WASM backend",
        expected: "none",
        hint: "The WASM backend computes at once; leave the option out.",
      });
    }
    const encoder = value as Partial<GPUCommandEncoder> | null;
    if (typeof encoder?.beginComputePass === "function") return encoder as GPUCommandEncoder;
    throw new OptionError("options.encoder", {
      got: show(value),
      expected: "a GPUCommandEncoder",
      hint: "Make one with the device's createCommandEncoder(), and submit it after run().",
    });
  }

  #checkAlive(subject: string): void {
    this.device.checkAlive(subject);
    if (!this.#destroyed) return;
    throw new DestroyedError(subject, {
      got: "a destroyed object",
      expected: "a live one",
      hint: "Destroy it (or leave its `using` block) only after its last use.",
    });
  }
}

/** Refuses results, which follow on the inputs, that share memory with an operand before. */
function checkApart(
  tensors: readonly NamedTensor[],
  storages: readonly Storage[],
  inputs: number,
): void {
  for (let i = inputs; i < storages.length; i++) {
    const { buffer } = storages[i];
    for (let other = 0; other < i; other++) {
      const isShared = storages[other] === storages[i] ||
        (buffer !== null && buffer === storages[other].buffer);
      if (!isShared) continue;
      throw new OptionError(`options.${tensors[i][0]}`, {
        got: `the tensor or the buffer of ${tensors[other][0]}`,
        expected: "memory of its own",
        hint:
          "A GPU cannot read and write one buffer at once; leave the option out for a new tensor.",
      });
    }
  }
}
