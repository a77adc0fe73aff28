/**
 * What paged decode and paged prefill have in common.
 *
 * @module
 */

import type { AttentionWithLse } from "./attend.ts";
import { hasQueries } from "./attention_problem.ts";
import { type CachePages, cachePages, cacheTensors, type PagedKv } from "./cache_pages.ts";
import type { KvLayout, RunOptions } from "./options.ts";
import { checkPlannedCache, overCache, type PagedPlan, withLastPageLen } from "./paged_problem.ts";
import { checkPlanned } from "./plan_checks.ts";
import { PlannedAttention } from "./planned_attention.ts";
import type { Tensor } from "./tensor.ts";

/** Planned attention over a paged cache. */
export class PagedAttention {
  readonly layout: KvLayout;
  readonly #planned: PlannedAttention;
  #plan: PagedPlan | null = null;
  /** How the cache lies that the backend has planned for. */
  #cache: CachePages | null = null;

  /** Throws `OptionError` where `device` is none. */
  constructor(device: unknown, layout: KvLayout) {
    this.#planned = new PlannedAttention(device);
    this.layout = layout;
  }

  plan(plan: PagedPlan): void {
    // The cache of the next run lies as the last one's did, most likely.
    const cache = this.#cache !== null && isLike(this.#cache, plan.cache)
      ? this.#cache
      : plan.cache;
    this.#planned.plan(overCache(plan, cache));
    this.#plan = plan;
    this.#cache = cache;
  }

  updateLastPageLen(lastPageLen: ArrayLike<number>): void {
    this.#planned.checkPlanned("updateLastPageLen");
    const plan = withLastPageLen(this.#plan!, lastPageLen);
    this.#planned.update(overCache(plan, this.#cache!));
    this.#plan = plan;
  }

  async run(
    q: Tensor,
    kvCache: PagedKv,
    options: RunOptions,
  ): Promise<Tensor | AttentionWithLse> {
    this.#planned.checkPlanned("run");
    const plan = this.#plan!;
    const query = this.#planned.input("q", q);
    checkPlanned("q", query[1], plan.tensors.q);
    const tensors = cacheTensors<unknown>(kvCache).map(([name, tensor]) =>
      this.#planned.input(name, tensor)
    );
    const cache = cachePages(tensors.map(([, tensor]) => tensor), this.layout);
    checkPlannedCache(plan, cache);
    if (cache.vOffset !== this.#cache!.vOffset) {
      this.#planned.plan(overCache(plan, cache));
      this.#cache = cache;
    }
    return await this.#planned.run({
      inputs: [query, ...tensors],
      k: 1,
      v: tensors.length,
      tensors: plan.tensors,
      hasQueries: hasQueries(plan.problem),
    }, options);
  }

  destroy(): void {
    this.#planned.destroy();
  }
}

/** Whether caches have the same sizes, so that one may lie as the other does. */
function isLike(a: CachePages, b: CachePages): boolean {
  return a.pageSize === b.pageSize && a.numKvHeads === b.numKvHeads && a.headDim === b.headDim &&
    a.headDimV === b.headDimV;
}
