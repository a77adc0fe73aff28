/**
 * Prefill of a batch whose requests lie one after another, planned once and run often.
 *
 * @module
 */

import { type AttentionWithLse, compute } from "./attend.ts";
import type { Storage } from "./backend.ts";
import { checkKvLayout, checkReturnLse } from "./attention_options.ts";
import { type Device, KvasirDevice } from "./device.ts";
import { DeviceMismatchError, OptionError, PlanError } from "./errors.ts";
import { checkNames } from "./option_checks.ts";
import type { KvLayout, RaggedPrefillPlan, RunOptions, WrapperOptions } from "./options.ts";
import { checkPlanned, type RaggedPlan, raggedPrefill } from "./ragged_problem.ts";
import { show } from "./shape.ts";
import { asDeviceTensor, type DeviceTensor, type Tensor, useTensors } from "./tensor.ts";

/**
 * Prefill attention of a batch of requests whose queries, and whose keys, lie one after another
 * without padding (FlashInfer's `BatchPrefillWithRaggedKVCacheWrapper`).
 *
 * {@linkcode BatchPrefillWithRaggedKvCache.plan} does all checks once;
 * {@linkcode BatchPrefillWithRaggedKvCache.run} may follow as often as its tensors have the planned
 * sizes. Each request is what {@linkcode singlePrefillWithKvCache} gives for its rows.
 *
 * It holds no memory of the device: there is nothing to destroy.
 *
 * @example
 * ```ts
 * import { BatchPrefillWithRaggedKvCache, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * const prefill = new BatchPrefillWithRaggedKvCache(device, { kvLayout: "NHD" });
 * prefill.plan({
 *   qoIndptr: [0, 3, 8], // 3 and 5 queries
 *   kvIndptr: [0, 20, 25], // 20 and 5 keys
 *   numQoHeads: 6,
 *   numKvHeads: 2,
 *   headDim: 64,
 *   qDtype: "float16",
 *   kvDtype: "float8_e4m3fn",
 *   causal: true,
 * });
 * using q = device.tensor(random(8 * 6 * 64), [8, 6, 64], "float16");
 * using k = device.tensor(random(25 * 2 * 64), [25, 2, 64], "float8_e4m3fn");
 * using v = device.tensor(random(25 * 2 * 64), [25, 2, 64], "float8_e4m3fn");
 * using out = await prefill.run(q, k, v);
 * console.log(out.shape); // [8, 6, 64]
 * ```
 */
export class BatchPrefillWithRaggedKvCache {
  readonly #device: KvasirDevice;
  readonly #layout: KvLayout;
  #plan: RaggedPlan | null = null;

  /**
   * Makes one without a plan.
   *
   * @param device Where the tensors will be.
   * @param options `kvLayout`: `"NHD"`, the default, or `"HND"`.
   * @throws {OptionError} when an argument does not fit.
   */
  constructor(device: Device, options: WrapperOptions = {}) {
    if (!(device instanceof KvasirDevice)) {
      throw new OptionError("device", {
        got: show(device),
        expected: "a device",
        hint: "Open one with openDevice().",
      });
    }
    this.#device = device;
    this.#layout = checkKvLayout(options, ["kvLayout"]);
  }

  /**
   * Checks and keeps what is to be computed. The arrays are copied. When it fails, an earlier plan
   * stays in force.
   *
   * @param plan See {@linkcode RaggedPrefillPlan}. Scales and sinks are numbers here, since a plan
   *   does not wait for the GPU: `await tensor.read()` first where they are in a tensor.
   * @throws {OptionError} when something does not fit; it names the request.
   */
  plan(plan: RaggedPrefillPlan): void {
    this.#plan = raggedPrefill(plan, this.#layout);
  }

  /**
   * Computes the planned attention.
   *
   * @param q `[sum of N, Hq, D]` in the plan's `qDtype`: all requests' queries.
   * @param k `[sum of L, Hkv, D]`, or `[Hkv, sum of L, D]` with `kvLayout: "HND"`, in `kvDtype`.
   * @param v k's shape, but for the head dim, which is the plan's `headDimV`.
   * @param options See {@linkcode RunOptions}.
   * @returns `[sum of N, Hq, Dv]` in `outDtype`; with `returnLse: true` also the lse,
   *   `[sum of N, Hq]` in float32.
   * @throws {PlanError} when there is no plan, or a tensor does not fit it; `OptionError` for bad
   *   options; `LimitError` when the device is too small; `DestroyedError`,
   *   `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError` from the GPU.
   */
  run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: RunOptions & { returnLse: true },
  ): Promise<AttentionWithLse>;
  /** {@inheritDoc BatchPrefillWithRaggedKvCache.run} */
  run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options?: RunOptions & { returnLse?: false },
  ): Promise<Tensor>;
  /** {@inheritDoc BatchPrefillWithRaggedKvCache.run} */
  run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options?: RunOptions,
  ): Promise<Tensor | AttentionWithLse>;
  async run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: RunOptions = {},
  ): Promise<Tensor | AttentionWithLse> {
    const plan = this.#plan;
    if (plan === null) {
      throw new PlanError("run", {
        got: "no plan",
        expected: "a call of plan() before",
        hint: "Plan once, then run as often as the sizes stay the same.",
      });
    }
    const inputs = [
      this.#check("q", q, plan),
      this.#check("k", k, plan),
      this.#check("v", v, plan),
    ] as const;
    checkNames(options, ["returnLse", "out", "lse"]);
    const returnLse = checkReturnLse(options);
    if (options.lse !== undefined && !returnLse) {
      throw new OptionError("options.lse", {
        got: "a tensor without returnLse",
        expected: "returnLse: true",
        hint: "lse is computed only where it is asked for.",
      });
    }
    const out = options.out === undefined ? [] : [this.#check("out", options.out, plan)];
    const lse = options.lse === undefined ? [] : [this.#check("lse", options.lse, plan)];
    const tensors = [...inputs, ...out, ...lse];
    const call = {
      problem: plan.problem,
      outShape: plan.tensors.out.shape,
      lseShape: plan.tensors.lse.shape,
      returnLse,
      hasPadding: false,
    };
    const given = { out: out[0]?.[1], lse: lse[0]?.[1] };
    return await useTensors(tensors, async (storages) => {
      checkApart(tensors.map(([name]) => name), storages, inputs.length);
      return await compute(this.#device, call, storages, given);
    });
  }

  #check(name: keyof RaggedPlan["tensors"], value: unknown, plan: RaggedPlan): NamedTensor {
    const tensor = asDeviceTensor(name, value);
    if (tensor.device !== this.#device) {
      throw new DeviceMismatchError(name, {
        got: `a tensor of another device (${tensor.device.backend})`,
        expected: `the plan's device (${this.#device.backend})`,
        hint: "Make all tensors of a call with the same device.",
      });
    }
    checkPlanned(name, tensor, plan);
    return [name, tensor];
  }
}

type NamedTensor = readonly [name: string, tensor: DeviceTensor];

/** Refuses results, which follow on the inputs, that share memory with an operand before. */
function checkApart(names: readonly string[], storages: readonly Storage[], inputs: number): void {
  for (let i = inputs; i < storages.length; i++) {
    const { buffer } = storages[i];
    const shared = storages.findIndex((other) =>
      other === storages[i] || (buffer !== null && buffer === other.buffer)
    );
    if (shared === i) continue;
    throw new OptionError(`options.${names[i]}`, {
      got: `the tensor or the buffer of ${names[shared]}`,
      expected: "memory of its own",
      hint:
        "A GPU cannot read and write one buffer at once; leave the option out for a new tensor.",
    });
  }
}
