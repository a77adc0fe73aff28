/**
 * What paged decode, paged prefill and cascades have in common.
 *
 * @module
 */

import type { AttentionWithLse } from "./attend.ts";
import type { PlannedWork } from "./backend.ts";
import { type CachePages, cachePages, cacheTensors } from "./cache_pages.ts";
import { type PagedKv, scalesOf, tensorsOfCache } from "./paged_kv.ts";
import { LimitError } from "./errors.ts";
import type { KvLayout } from "./options.ts";
import type { RunOptions } from "./planned_options.ts";
import {
  asPair,
  checkPlannedCache,
  overCache,
  type PagedPlan,
  withLastPageLen,
} from "./paged_problem.ts";
import { checkPlanned } from "./plan_checks.ts";
import { PlannedAttention } from "./planned_attention.ts";
import type { Tensor } from "./tensor.ts";
import { checkScalesTensor } from "./token_scales.ts";

/** The merged results of levels; null where there is one, which is not merged. */
export type Merged = PlannedWork["merged"];

/** Planned attention over a paged cache, in one level or more. */
export class PagedAttention {
  readonly layout: KvLayout;
  readonly #planned: PlannedAttention;
  #levels: readonly PagedPlan[] = [];
  #merged: Merged = null;
  /** How the cache lies that the backend has planned for. */
  #cache: CachePages | null = null;

  /** Throws `OptionError` where `device` is none. */
  constructor(device: unknown, layout: KvLayout) {
    this.#planned = new PlannedAttention(device);
    this.layout = layout;
  }

  /** The plan of the first level; undefined where there is none. */
  get planned(): PagedPlan | undefined {
    return this.#levels[0];
  }

  plan(levels: readonly PagedPlan[], merged: Merged = null): void {
    const [{ cache: likely }] = levels;
    // The cache of the next run lies as the last one's did, most likely.
    const known = this.#cache !== null && isLike(this.#cache, likely) ? this.#cache : likely;
    try {
      this.#planOver(known, levels, merged);
    } catch (error) {
      // One tensor may be too large for a binding where each of a pair is not: run tells.
      if (!(error instanceof LimitError) || known.vOffset === null) throw error;
      this.#planOver(asPair(this.layout, likely), levels, merged);
    }
    this.#levels = levels;
    this.#merged = merged;
  }

  /** For a plan of one level. */
  updateLastPageLen(lastPageLen: ArrayLike<number>): void {
    this.#planned.checkPlanned("updateLastPageLen");
    const plan = withLastPageLen(this.#levels[0], lastPageLen);
    this.#planned.update(overCache(plan, this.#cache!));
    this.#levels = [plan];
  }

  async run(
    q: Tensor,
    kvCache: PagedKv,
    options: RunOptions,
  ): Promise<Tensor | AttentionWithLse> {
    this.#planned.checkPlanned("run");
    const levels = this.#levels;
    const [{ tensors, problem }] = levels;
    const query = this.#planned.input("q", q);
    checkPlanned("q", query[1], tensors.q);
    const parts = cacheTensors<unknown>(tensorsOfCache(kvCache, this.layout)).map((
      [name, tensor],
    ) => this.#planned.input(name, tensor));
    const cache = cachePages(parts.map(([, tensor]) => tensor), this.layout);
    for (const level of levels) checkPlannedCache(level, cache);
    if (cache.vOffset !== this.#cache!.vOffset) this.#planOver(cache, levels, this.#merged);
    const scales = this.#planned.scalesInput(scalesOf(kvCache, options?.kvScales), problem);
    const { numPages, numKvHeads, pageSize } = cache;
    for (const [, tensor] of scales) {
      checkScalesTensor(tensor, { pages: numPages, numKvHeads, tokens: pageSize });
    }
    const out = this.#merged ? { ...tensors.out, dtype: this.#merged.outDtype } : tensors.out;
    return await this.#planned.run({
      inputs: [query, ...parts, ...scales],
      k: 1,
      v: parts.length,
      kvScales: scales.length > 0 ? 1 + parts.length : null,
      tensors: { out, lse: tensors.lse },
      hasQueries: tensors.q.shape[0] > 0,
    }, options);
  }

  destroy(): void {
    this.#planned.destroy();
  }

  #planOver(cache: CachePages, levels: readonly PagedPlan[], merged: Merged): void {
    this.#planned.planWork({ levels: levels.map((level) => overCache(level, cache)), merged });
    this.#cache = cache;
  }
}

/** Whether caches have the same sizes and dtypes, so that one may lie as the other does. */
function isLike(a: CachePages, b: CachePages): boolean {
  return a.pageSize === b.pageSize && a.numKvHeads === b.numKvHeads && a.headDim === b.headDim &&
    a.headDimV === b.headDimV && a.kDtype === b.kDtype && a.vDtype === b.vDtype;
}
