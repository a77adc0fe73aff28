/**
 * Keys and values of whole requests in FP8 with scales of tokens: from the shapes and options of a call
 * to an {@linkcode AppendProblem} that writes every place of a new cache. Pure.
 *
 * @module
 */

import { type AppendProblem, SLOT_WORDS } from "./append_problem.ts";
import { checkKvLayout } from "./attention_options.ts";
import {
  cacheDims,
  cacheSizes,
  cacheStrides,
  checkOneDtype,
  checkRank,
  checkValue,
  scaleSizes,
  type TensorSpec,
} from "./attention_shapes.ts";
import { isFp8DType } from "./dtype.ts";
import { DTypeError, ShapeError } from "./errors.ts";
import type { KvLayout } from "./options.ts";
import { show } from "./shape.ts";
import { scalesSpec, scaleStrides } from "./token_scales.ts";

/** Options of {@linkcode quantizeKv}. */
export interface QuantizeKvOptions {
  /** Layout of k and v, and of the result. Default `"NHD"`. */
  kvLayout?: KvLayout;
}

/** A call that is known to be right. */
export interface QuantizeKvCall {
  readonly problem: AppendProblem;
  /** What is made. */
  readonly k: TensorSpec;
  readonly v: TensorSpec;
  readonly kvScales: TensorSpec;
}

/** Checks a call of `quantizeKv`. Throws `ShapeError`, `DTypeError` or `OptionError`. */
export function quantizingKv(
  k: TensorSpec,
  v: TensorSpec,
  to: unknown,
  options: QuantizeKvOptions,
): QuantizeKvCall {
  const layout = checkKvLayout(options, ["kvLayout"]);
  const isBatch = k.shape.length === 4;
  const dims = checkRank("k", k, [...(isBatch ? ["B"] : []), ...cacheDims(layout)]);
  const headDimV = checkValue(k, v);
  checkOneDtype(k, v);
  const sizes = cacheSizes(dims.slice(-3), layout);
  if (sizes.headDim < 1) {
    throw new ShapeError("k", {
      got: `shape ${show(k.shape)}`,
      expected: "a head dim of at least 1",
      hint: "The last dim of k and v is the head dim.",
    });
  }
  if (!isFp8DType(to)) {
    throw new DTypeError("dtype", {
      got: show(to),
      expected: "float8_e4m3fn or float8_e5m2",
      hint: "Scales of tokens make rows fit the range of FP8; quantize() gives other dtypes.",
    });
  }
  if (isFp8DType(k.dtype)) {
    throw new DTypeError("k", {
      got: k.dtype,
      expected: "float32, float16 or bfloat16",
      hint: "dequantize() widens what is FP8 already.",
    });
  }
  const batch = isBatch ? dims[0] : 1;
  const { length, numKvHeads, headDim } = sizes;
  // With HND, heads lie apart as tokens do: a request is one head of numKvHeads · length tokens.
  const heads = layout === "NHD" ? numKvHeads : 1;
  const tokens = layout === "NHD" ? length : numKvHeads * length;
  const strides = (dim: number) =>
    cacheStrides("NHD", { length: tokens, numKvHeads: heads, headDim: dim });
  const slots = new Uint32Array(batch * tokens * SLOT_WORDS);
  for (let i = 0; i < batch * tokens; i++) {
    slots.set([Math.floor(i / tokens), i % tokens, i % length], i * SLOT_WORDS);
  }
  return {
    problem: {
      numTokens: batch * tokens,
      numKvHeads: heads,
      headDim,
      headDimV,
      dtype: k.dtype,
      kDtype: to,
      vDtype: to,
      numPages: batch,
      slots,
      kStrides: strides(headDim),
      vStrides: strides(headDimV),
      vOffset: null,
      kFactors: null,
      vFactors: null,
      kvScales: scaleStrides({ numKvHeads, tokens: length }),
      rope: null,
    },
    k: { shape: k.shape, dtype: to },
    v: { shape: v.shape, dtype: to },
    kvScales: scalesSpec(scaleSizes(sizes, isBatch ? batch : null)),
  };
}
