/**
 * What paged calls take as their cache.
 *
 * @module
 */

import type { CacheTensors } from "./cache_pages.ts";
import { OptionError } from "./errors.ts";
import type { KvLayout } from "./options.ts";
import { PagedKvCache } from "./paged_kv_cache.ts";
import type { Tensor } from "./tensor.ts";

/**
 * A paged KV cache: one tensor `[pages, 2, pageSize, Hkv, D]`, or with `kvLayout: "HND"`
 * `[pages, 2, Hkv, pageSize, D]`; a pair of tensors without the 2, whose head dims and dtypes may
 * differ; or a {@linkcode PagedKvCache} of one layer.
 */
export type PagedKv = CacheTensors | PagedKvCache;

/** The tensors of a cache. Throws `OptionError` for a `PagedKvCache` that does not fit. */
export function tensorsOfCache(cache: PagedKv, layout: KvLayout): CacheTensors {
  if (!(cache instanceof PagedKvCache)) return cache;
  if (cache.kvLayout !== layout) {
    throw new OptionError("kvCache", {
      got: `a cache of kvLayout "${cache.kvLayout}"`,
      expected: `"${layout}", the call's`,
      hint: "Give both the same kvLayout.",
    });
  }
  if (cache.numLayers === 1) return cache.layer(0);
  throw new OptionError("kvCache", {
    got: `a cache of ${cache.numLayers} layers`,
    expected: "one layer",
    hint: "Give cache.layer(i) for layer i.",
  });
}

/** The scales of a cache's tokens: its own, or those given beside it. Throws `OptionError` for both. */
export function scalesOf(cache: PagedKv, given: Tensor | undefined): Tensor | undefined {
  const own = cache instanceof PagedKvCache ? cache.scales(0) ?? undefined : undefined;
  if (own === undefined || given === undefined) return own ?? given;
  throw new OptionError("options.kvScales", {
    got: "scales beside a PagedKvCache that has its own",
    expected: "one of the two",
    hint: "Leave the option out.",
  });
}
