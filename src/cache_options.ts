/**
 * What a paged KV cache is made of: its options, checked. Pure.
 *
 * @module
 */

import { checkOwnScales, checkScales } from "./append_problem.ts";
import { checkKvLayout } from "./attention_options.ts";
import type { TensorSpec } from "./attention_shapes.ts";
import { bytesPerElement, type KvDType, type KvDTypes } from "./dtype.ts";
import { LimitError } from "./errors.ts";
import { checkInteger } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import { checkKvDtype, checkPlanSize } from "./plan_checks.ts";
import { hasTokenScales, type KvScalesMode, scalesSpec } from "./token_scales.ts";

/** Options of {@linkcode PagedKvCache.create}. */
export interface PagedKvCacheOptions {
  /** Pages in all; `numPages · pageSize` tokens at most. */
  numPages: number;
  /** Tokens of a page. */
  pageSize: number;
  /** Heads of k and v. */
  numKvHeads: number;
  /** The head dim of k. */
  headDim: number;
  /** The head dim of v. Default `headDim`. */
  headDimV?: number;
  /** How keys and values are stored: one dtype, or `{ k, v }`, one for each. */
  dtype: KvDType;
  /** Layout of the pages. Default `"NHD"`. */
  kvLayout?: KvLayout;
  /** Layers that share the page table. Default 1. */
  numLayers?: number;
  /**
   * What stored keys are multiplied with to be the real ones: one number above 0, or one for each KV
   * head; appended keys are multiplied by 1 / it. Give attention the same. Default 1.
   */
  kScale?: number | ArrayLike<number>;
  /** The same for values. */
  vScale?: number | ArrayLike<number>;
  /**
   * `"token"`: the cache is FP8, and each appended row is divided by a scale of its own, by its largest
   * value, which is kept beside it ({@linkcode PagedKvCache.scales}): 4 bytes a row more. Attention
   * whose plan says the same finds them. Not with `kScale` or `vScale`. Default `"none"`.
   */
  kvScales?: KvScalesMode;
}

const NAMES = [
  "numPages",
  "pageSize",
  "numKvHeads",
  "headDim",
  "headDimV",
  "dtype",
  "kvLayout",
  "numLayers",
  "kScale",
  "vScale",
  "kvScales",
];

/** Options that are known to be right. */
export interface CheckedCacheOptions extends KvDTypes {
  readonly numPages: number;
  readonly pageSize: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly headDimV: number;
  readonly layout: KvLayout;
  readonly numLayers: number;
  /** 1 / scale; null where all are 1. */
  readonly kFactors: Float32Array<ArrayBuffer> | null;
  readonly vFactors: Float32Array<ArrayBuffer> | null;
  /**
   * The tensors of a layer: one, or a pair where v's rows have another length or dtype, or one is too
   * large.
   */
  readonly tensors: readonly TensorSpec[];
  /** The scales of a layer's tokens; null where they have none. */
  readonly scales: TensorSpec | null;
}

/**
 * Checks the options. Throws `OptionError` or `LimitError`.
 *
 * @param options What the caller wants.
 * @param bindingBytes What kernels can see of a tensor: k and v are a pair where both are more.
 * @param dimStep What kernels want head dims to be multiples of.
 */
export function checkCacheOptions(
  options: PagedKvCacheOptions,
  bindingBytes: number,
  dimStep = 1,
): CheckedCacheOptions {
  const layout = checkKvLayout(options as { kvLayout?: KvLayout }, NAMES);
  const numPages = checkInteger("options.numPages", options.numPages, 1);
  const [pageSize, numKvHeads, headDim, headDimV, numLayers] = ([
    ["pageSize", options.pageSize],
    ["numKvHeads", options.numKvHeads],
    ["headDim", options.headDim],
    ["headDimV", options.headDimV ?? options.headDim],
    ["numLayers", options.numLayers ?? 1],
  ] as const).map(([name, value]) => checkPlanSize(`options.${name}`, value));
  const dtypes = checkKvDtype("options.dtype", options.dtype);
  const { kDtype, vDtype } = dtypes;
  for (const [name, dim] of [["headDim", headDim], ["headDimV", headDimV]] as const) {
    if (dim % dimStep === 0) continue;
    throw new LimitError(`options.${name}`, {
      got: `a head dim of ${dim}`,
      expected: `a multiple of ${dimStep} on WebGPU`,
      hint: "Pad the heads with zeros, or use the WASM backend.",
    });
  }
  const page = (dim: number) =>
    layout === "NHD" ? [pageSize, numKvHeads, dim] : [numKvHeads, pageSize, dim];
  const hasScales = hasTokenScales(options.kvScales);
  if (hasScales) checkOwnScales(options, dtypes);
  const bytes = numPages * pageSize * numKvHeads * 2 * headDim * bytesPerElement(kDtype);
  const shapes = headDim === headDimV && kDtype === vDtype && bytes <= bindingBytes
    ? [[numPages, 2, ...page(headDim)]]
    : [[numPages, ...page(headDim)], [numPages, ...page(headDimV)]];
  return {
    numPages,
    pageSize,
    numKvHeads,
    headDim,
    headDimV,
    ...dtypes,
    layout,
    numLayers,
    kFactors: checkScales("options.kScale", options.kScale, numKvHeads),
    vFactors: checkScales("options.vScale", options.vScale, numKvHeads),
    tensors: shapes.map((shape, i) => ({ shape, dtype: i === 0 ? kDtype : vDtype })),
    scales: hasScales ? scalesSpec({ pages: numPages, numKvHeads, tokens: pageSize }) : null,
  };
}
