/**
 * Decode of a batch over a paged cache, planned once and run often.
 *
 * @module
 */

import type { AttentionWithLse } from "./attend.ts";
import { checkKvLayout } from "./attention_options.ts";
import type { PagedKv } from "./paged_kv.ts";
import type { Device } from "./device.ts";
import type { PagedDecodePlan, RunOptions, WrapperOptions } from "./planned_options.ts";
import { PagedAttention } from "./paged_attention.ts";
import { pagedDecode } from "./paged_problem.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Decode attention of a batch over a paged KV cache: one query token a request (FlashInfer's
 * `BatchDecodeWithPagedKVCacheWrapper`).
 *
 * {@linkcode BatchDecodeWithPagedKvCache.plan} does all checks and all scheduling;
 * {@linkcode BatchDecodeWithPagedKvCache.run} may follow for every layer and every token as long as the
 * pages stay the same. A sequence that grows within its last page needs no new plan, only
 * {@linkcode BatchDecodeWithPagedKvCache.updateLastPageLen}. Results are those of
 * {@linkcode batchDecodeWithPaddedKvCache} over the same tokens.
 *
 * It holds some memory of the device until {@linkcode BatchDecodeWithPagedKvCache.destroy}, the end of
 * a `using` block, or its device's end.
 *
 * @example
 * ```ts
 * import { BatchDecodeWithPagedKvCache, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using decode = new BatchDecodeWithPagedKvCache(device, { kvLayout: "NHD" });
 * decode.plan({
 *   indptr: [0, 2, 3], // request 0 has pages 5 and 0, request 1 has page 2
 *   indices: [5, 0, 2],
 *   lastPageLen: [7, 16], // so they have 23 and 16 tokens
 *   numQoHeads: 6,
 *   numKvHeads: 2,
 *   headDim: 64,
 *   pageSize: 16,
 *   qDtype: "float16",
 *   kvDtype: "float8_e4m3fn",
 * });
 * using q = device.tensor(random(2 * 6 * 64), [2, 6, 64], "float16");
 * using cache = device.tensor(random(8 * 2 * 16 * 2 * 64), [8, 2, 16, 2, 64], "float8_e4m3fn");
 * using out = await decode.run(q, cache);
 * decode.updateLastPageLen([8, 16]); // request 0 got a token
 * const { lse } = await decode.run(q, cache, { returnLse: true, out });
 * console.log(out.shape, lse.shape); // [2, 6, 64] [2, 6]
 * ```
 */
export class BatchDecodeWithPagedKvCache implements Disposable {
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
   * @param plan See {@linkcode PagedDecodePlan}. Scales and sinks are numbers here, since a plan does
   *   not wait for the GPU: `await tensor.read()` first where they are in a tensor.
   * @throws {OptionError} when something does not fit; it names the request. `LimitError` when the
   *   device is too small; `DestroyedError`, `DeviceLostError`.
   */
  plan(plan: PagedDecodePlan): void {
    this.#paged.plan([pagedDecode(plan, this.#paged.layout, this.#paged.planned)]);
  }

  /**
   * Takes in that sequences have grown (or shrunk) within their last pages. It is written for whatever
   * is submitted afterwards, recorded work included.
   *
   * @param lastPageLen As in the plan.
   * @throws {PlanError} when there is no plan; `OptionError`, naming the request, when a length does
   *   not fit; the lengths are as they were then. `DestroyedError`, `DeviceLostError`.
   */
  updateLastPageLen(lastPageLen: ArrayLike<number>): void {
    this.#paged.updateLastPageLen(lastPageLen);
  }

  /**
   * Computes the planned attention.
   *
   * @param q `[B, Hq, D]` in the plan's `qDtype`.
   * @param kvCache See {@linkcode PagedKv}; in the plan's `kvDtype`, with at least as many pages as the
   *   plan's page numbers tell of.
   * @param options See {@linkcode RunOptions}.
   * @returns `[B, Hq, D]` in `outDtype`; with `returnLse: true` also the lse,
   *   `[B, Hq]` in float32.
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
  /** {@inheritDoc BatchDecodeWithPagedKvCache.run} */
  run(
    q: Tensor,
    kvCache: PagedKv,
    options?: RunOptions & { returnLse?: false },
  ): Promise<Tensor>;
  /** {@inheritDoc BatchDecodeWithPagedKvCache.run} */
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

  /** As {@linkcode BatchDecodeWithPagedKvCache.destroy}. */
  [Symbol.dispose](): void {
    this.destroy();
  }
}
