/**
 * Cascade attention: what requests share is computed once for all of them.
 *
 * @module
 */

import type { AttentionWithLse } from "./attend.ts";
import { checkKvLayout } from "./attention_options.ts";
import type { PagedKv } from "./paged_kv.ts";
import { cascade } from "./cascade_problem.ts";
import type { Device } from "./device.ts";
import { checkInteger } from "./option_checks.ts";
import type { CascadeOptions, CascadePlan, RunOptions } from "./planned_options.ts";
import { PagedAttention } from "./paged_attention.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Attention of a batch whose requests share parts of their keys (FlashInfer's
 * `MultiLevelCascadeAttentionWrapper`): each level says which queries share which pages, and the
 * states of all levels are merged. A prompt that 64 requests begin with is read once, not 64 times.
 *
 * The keys of a request are those of its groups, level after level. Keys and queries must be rotated
 * already where a model rotates them ({@linkcode appendPagedKvCache} can): a level knows nothing of the
 * positions before it, so there is no `posEncodingMode` and no `windowLeft`.
 *
 * It holds some memory of the device until {@linkcode MultiLevelCascadeAttention.destroy}, the end of a
 * `using` block, or its device's end.
 *
 * @example
 * ```ts
 * import { MultiLevelCascadeAttention, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using attention = new MultiLevelCascadeAttention(device, { numLevels: 2, kvLayout: "NHD" });
 * attention.plan({
 *   levels: [
 *     // All three requests share pages 4 and 1: 32 tokens.
 *     {
 *       qoIndptr: [0, 3],
 *       pagedKvIndptr: [0, 2],
 *       pagedKvIndices: [4, 1],
 *       pagedKvLastPageLen: [16],
 *     },
 *     // Each has a page of its own, with 5, 16 and 1 tokens.
 *     {
 *       qoIndptr: [0, 1, 2, 3],
 *       pagedKvIndptr: [0, 1, 2, 3],
 *       pagedKvIndices: [0, 5, 2],
 *       pagedKvLastPageLen: [5, 16, 1],
 *     },
 *   ],
 *   numQoHeads: 6,
 *   numKvHeads: 2,
 *   headDim: 64,
 *   pageSize: 16,
 *   qDtype: "float16",
 *   kvDtype: "float16",
 * });
 * using q = device.tensor(random(3 * 6 * 64), [3, 6, 64], "float16");
 * using cache = device.tensor(random(6 * 2 * 16 * 2 * 64), [6, 2, 16, 2, 64], "float16");
 * using out = await attention.run(q, cache);
 * console.log(out.shape); // [3, 6, 64]
 * ```
 */
export class MultiLevelCascadeAttention implements Disposable {
  readonly #paged: PagedAttention;
  readonly #numLevels: number;

  /**
   * Makes one without a plan.
   *
   * @param device Where the tensors will be.
   * @param options `numLevels`, and `kvLayout`: `"NHD"`, the default, or `"HND"`.
   * @throws {OptionError} when an argument does not fit.
   */
  constructor(device: Device, options: CascadeOptions) {
    this.#paged = new PagedAttention(device, checkKvLayout(options, ["numLevels", "kvLayout"]));
    this.#numLevels = checkInteger("options.numLevels", options.numLevels, 1);
  }

  /**
   * Checks and keeps what is to be computed: page tables, schedules, kernels. The arrays are copied.
   * When it fails, an earlier plan stays in force.
   *
   * @param plan See {@linkcode CascadePlan}.
   * @throws {OptionError} when something does not fit; it names the level and the group. `LimitError`
   *   when the device is too small; `DestroyedError`, `DeviceLostError`.
   */
  plan(plan: CascadePlan): void {
    const { levels, merged } = cascade(plan, this.#paged.layout, this.#numLevels);
    this.#paged.plan(levels, levels.length > 1 ? merged : null);
  }

  /**
   * Computes the planned attention.
   *
   * @param q `[rows, Hq, D]` in the plan's `qDtype`.
   * @param kvCache See {@linkcode PagedKv}; in the plan's `kvDtype`, with at least as many pages as the
   *   plan's page numbers tell of.
   * @param options See {@linkcode RunOptions}.
   * @returns `[rows, Hq, D]` in `outDtype`; with `returnLse: true` also the lse, `[rows, Hq]` in
   *   float32, over all levels.
   * @throws {PlanError} when there is no plan, or a tensor does not fit it; `ShapeError` or
   *   `DTypeError` for a cache that is none; `OptionError` for bad options; `LimitError`,
   *   `DestroyedError`, `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError`
   *   from the GPU.
   */
  run(
    q: Tensor,
    kvCache: PagedKv,
    options: RunOptions & { returnLse: true },
  ): Promise<AttentionWithLse>;
  /** {@inheritDoc MultiLevelCascadeAttention.run} */
  run(
    q: Tensor,
    kvCache: PagedKv,
    options?: RunOptions & { returnLse?: false },
  ): Promise<Tensor>;
  /** {@inheritDoc MultiLevelCascadeAttention.run} */
  run(q: Tensor, kvCache: PagedKv, options?: RunOptions): Promise<Tensor | AttentionWithLse>;
  run(
    q: Tensor,
    kvCache: PagedKv,
    options: RunOptions = {},
  ): Promise<Tensor | AttentionWithLse> {
    return this.#paged.run(q, kvCache, options);
  }

  /** Gives its memory back once no run is under way; a second call does nothing. */
  destroy(): void {
    this.#paged.destroy();
  }

  /** As {@linkcode MultiLevelCascadeAttention.destroy}. */
  [Symbol.dispose](): void {
    this.destroy();
  }
}
