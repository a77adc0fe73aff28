/**
 * Prefill of a batch over a paged cache, planned once and run often.
 *
 * @module
 */

import type { AttentionWithLse } from "./attend.ts";
import { checkKvLayout } from "./attention_options.ts";
import type { PagedKv } from "./paged_kv.ts";
import type { Device } from "./device.ts";
import type { PagedPrefillPlan, RunOptions, WrapperOptions } from "./planned_options.ts";
import { PagedAttention } from "./paged_attention.ts";
import { pagedPrefill } from "./paged_problem.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Prefill attention of a batch over a paged KV cache: any number of query tokens a request (FlashInfer's
 * `BatchPrefillWithPagedKVCacheWrapper`). The keys of the queries are in the cache already.
 *
 * {@linkcode BatchPrefillWithPagedKvCache.plan} does all checks and all scheduling;
 * {@linkcode BatchPrefillWithPagedKvCache.run} may follow for every layer. Each request is what
 * {@linkcode singlePrefillWithKvCache} gives for its rows and its tokens.
 *
 * It holds some memory of the device until {@linkcode BatchPrefillWithPagedKvCache.destroy}, the end of
 * a `using` block, or its device's end.
 *
 * @example
 * ```ts
 * import { BatchPrefillWithPagedKvCache, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using prefill = new BatchPrefillWithPagedKvCache(device, { kvLayout: "NHD" });
 * prefill.plan({
 *   qoIndptr: [0, 3, 8], // 3 and 5 queries
 *   pagedKvIndptr: [0, 2, 3], // request 0 has pages 5 and 0, request 1 has page 2
 *   pagedKvIndices: [5, 0, 2],
 *   pagedKvLastPageLen: [7, 16],
 *   numQoHeads: 6,
 *   numKvHeads: 2,
 *   headDim: 64,
 *   pageSize: 16,
 *   qDtype: "float16",
 *   kvDtype: "float8_e4m3fn",
 *   causal: true,
 * });
 * using q = device.tensor(random(8 * 6 * 64), [8, 6, 64], "float16");
 * using cache = device.tensor(random(8 * 2 * 16 * 2 * 64), [8, 2, 16, 2, 64], "float8_e4m3fn");
 * using out = await prefill.run(q, cache);
 * console.log(out.shape); // [8, 6, 64]
 * ```
 */
export class BatchPrefillWithPagedKvCache implements Disposable {
  readonly #paged: PagedAttention;

  /**
   * Makes one without a plan.
   *
   * @param device Where the tensors will be.
   * @param options `kvLayout`: `"NHD"`, the default, or `"HND"`.
   * @throws {OptionError} when an argument does not fit.
   */
  constructor(device: Device, options: WrapperOptions = {}) {
    this.#paged = new PagedAttention(device, checkKvLayout(options, ["kvLayout"]));
  }

  /**
   * Checks and keeps what is to be computed: page table, schedule, kernels. The arrays are copied. When
   * it fails, an earlier plan stays in force.
   *
   * @param plan See {@linkcode PagedPrefillPlan}. Scales and sinks are numbers here, since a plan does
   *   not wait for the GPU: `await tensor.read()` first where they are in a tensor.
   * @throws {OptionError} when something does not fit; it names the request. `LimitError` when the
   *   device is too small; `DestroyedError`, `DeviceLostError`.
   */
  plan(plan: PagedPrefillPlan): void {
    this.#paged.plan([pagedPrefill(plan, this.#paged.layout)]);
  }

  /**
   * Computes the planned attention.
   *
   * @param q `[sum of N, Hq, D]`, all requests' queries, in the plan's `qDtype`.
   * @param kvCache See {@linkcode PagedKv}; in the plan's `kvDtype`, with at least as many pages as the
   *   plan's page numbers tell of.
   * @param options See {@linkcode RunOptions}.
   * @returns `[sum of N, Hq, Dv]` in `outDtype`; with `returnLse: true` also the lse,
   *   `[sum of N, Hq]` in float32.
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
  /** {@inheritDoc BatchPrefillWithPagedKvCache.run} */
  run(
    q: Tensor,
    kvCache: PagedKv,
    options?: RunOptions & { returnLse?: false },
  ): Promise<Tensor>;
  /** {@inheritDoc BatchPrefillWithPagedKvCache.run} */
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

  /** As {@linkcode BatchPrefillWithPagedKvCache.destroy}. */
  [Symbol.dispose](): void {
    this.destroy();
  }
}
