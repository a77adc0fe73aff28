/**
 * Scales of each token and KV head: the shape of their tensor, and where it has which. Pure.
 *
 * One float32 tensor holds those of keys and of values, so that kernels need one binding for them, in
 * pairs, so that a lane takes both of a token in one load; a head's lie side by side whatever the layout of
 * the cache, since lanes read them token by token.
 *
 * @module
 */

import type { ScaleStrides } from "./attention_problem.ts";
import type { TensorSpec } from "./attention_shapes.ts";
import { DTypeError, ShapeError } from "./errors.ts";
import { checkWord } from "./option_checks.ts";
import { show } from "./shape.ts";

/**
 * What keys and values have scales of, beside those of heads: of nothing, or of each token and KV head.
 */
export type KvScalesMode = "none" | "token";

/** Options whose scales are looked at by shape and dtype only. */
export type WithScalesSpec<Options> = Omit<Options, "kvScales"> & {
  readonly kvScales?: TensorSpec;
};

/** What the scales are of: pages or requests (one, where a call has no batch), heads, tokens of each. */
export interface ScaleSizes {
  readonly pages: number | null;
  readonly numKvHeads: number;
  readonly tokens: number;
}

/** The scales' tensor: `[pages, Hkv, tokens, 2]`, or without the pages; k's, then v's. */
export function scalesSpec({ pages, numKvHeads, tokens }: ScaleSizes): TensorSpec {
  return { shape: [...(pages === null ? [] : [pages]), numKvHeads, tokens, 2], dtype: "float32" };
}

/** Where such a tensor has which scale. */
export function scaleStrides({ numKvHeads, tokens }: Omit<ScaleSizes, "pages">): ScaleStrides {
  return { page: numKvHeads * tokens, head: tokens };
}

/** Checks that a tensor holds a cache's scales. Throws `ShapeError` or `DTypeError`. */
export function checkScalesTensor({ shape, dtype }: TensorSpec, sizes: ScaleSizes): void {
  const wanted = scalesSpec(sizes);
  const dims = `${sizes.pages === null ? "" : "pages or requests, "}Hkv, tokens, 2 for k and v`;
  const hint =
    `Scales of tokens are [${dims}] in both layouts; kScale and vScale take those of heads.`;
  if (dtype !== wanted.dtype) {
    throw new DTypeError("options.kvScales", { got: dtype, expected: wanted.dtype, hint });
  }
  if (show(shape) === show(wanted.shape)) return;
  throw new ShapeError("options.kvScales", {
    got: `shape ${show(shape)}`,
    expected: `${show(wanted.shape)}, by the cache's sizes`,
    hint,
  });
}

/** The scales that a call is given with a cache of these sizes; null where it is given none. */
export function givenScales(given: TensorSpec | undefined, sizes: ScaleSizes): ScaleStrides | null {
  if (given === undefined) return null;
  checkScalesTensor(given, sizes);
  return scaleStrides(sizes);
}

/** Whether a plan's or a cache's option says that tokens have scales. Throws `OptionError`. */
export function hasTokenScales(value: unknown): boolean {
  const hint = "Scales of tokens are a tensor at run; those of heads are kScale and vScale.";
  return checkWord("options.kvScales", value ?? "none", ["none", "token"], hint) === "token";
}
