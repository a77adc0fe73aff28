/**
 * Prefill of a batch whose requests lie one after another, planned once and run often.
 *
 * @module
 */

import type { AttentionWithLse } from "./attend.ts";
import { checkKvLayout } from "./attention_options.ts";
import { hasQueries } from "./attention_problem.ts";
import type { Device } from "./device.ts";
import type { KvLayout } from "./options.ts";
import type { RaggedPrefillPlan, RunOptions, WrapperOptions } from "./planned_options.ts";
import { checkPlanned } from "./plan_checks.ts";
import { PlannedAttention } from "./planned_attention.ts";
import { type RaggedPlan, raggedPrefill } from "./ragged_problem.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Prefill attention of a batch of requests whose queries, and whose keys, lie one after another
 * without padding (FlashInfer's `BatchPrefillWithRaggedKVCacheWrapper`).
 *
 * {@linkcode BatchPrefillWithRaggedKvCache.plan} does all checks once;
 * {@linkcode BatchPrefillWithRaggedKvCache.run} may follow as often as its tensors have the planned
 * sizes. Each request is what {@linkcode singlePrefillWithKvCache} gives for its rows.
 *
 * It holds some memory of the device until {@linkcode BatchPrefillWithRaggedKvCache.destroy}, the end
 * of a `using` block, or its device's end.
 *
 * @example
 * ```ts
 * import { BatchPrefillWithRaggedKvCache, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using prefill = new BatchPrefillWithRaggedKvCache(device, { kvLayout: "NHD" });
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
export class BatchPrefillWithRaggedKvCache implements Disposable {
  readonly #planned: PlannedAttention;
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
    this.#planned = new PlannedAttention(device);
    this.#layout = checkKvLayout(options, ["kvLayout"]);
  }

  /**
   * Checks and keeps what is to be computed. The arrays are copied. When it fails, an earlier plan
   * stays in force.
   *
   * @param plan See {@linkcode RaggedPrefillPlan}. Scales and sinks are numbers here, since a plan
   *   does not wait for the GPU: `await tensor.read()` first where they are in a tensor.
   * @throws {OptionError} when something does not fit; it names the request. `LimitError` when the
   *   device is too small; `DestroyedError`, `DeviceLostError`.
   */
  plan(plan: RaggedPrefillPlan): void {
    const checked = raggedPrefill(plan, this.#layout);
    this.#planned.plan(checked.problem);
    this.#plan = checked;
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
    this.#planned.checkPlanned("run");
    const plan = this.#plan!;
    const inputs = ([["q", q], ["k", k], ["v", v]] as const).map(([name, value]) => {
      const input = this.#planned.input(name, value);
      checkPlanned(name, input[1], plan.tensors[name]);
      return input;
    });
    const scales = this.#planned.scalesInput(options?.kvScales, plan.problem);
    for (const [name, tensor] of scales) checkPlanned(name, tensor, plan.tensors.kvScales);
    const run = {
      inputs: [...inputs, ...scales],
      k: 1,
      v: 2,
      kvScales: scales.length > 0 ? 3 : null,
      tensors: plan.tensors,
      hasQueries: hasQueries(plan.problem),
    };
    return await this.#planned.run(run, options);
  }

  /** Gives its memory back once no run is under way; a second call does nothing. */
  destroy(): void {
    this.#planned.destroy();
  }

  /** As {@linkcode BatchPrefillWithRaggedKvCache.destroy}. */
  [Symbol.dispose](): void {
    this.destroy();
  }
}
