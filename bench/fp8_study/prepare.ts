/**
 * What can be done to queries and keys before they are stored, without changing attention: a random
 * rotation, and taking off the keys' mean.
 *
 * @module
 */

import type { Inputs } from "./inputs.ts";
import { normals } from "./inputs.ts";

/** A preparation of q and k. */
export type Preparation = "as they are" | "rotated" | "mean taken off";

/** Queries and keys to compute with in the place of the inputs'. */
export function prepare(
  inputs: Inputs,
  how: Preparation,
  seed: number,
): Pick<Inputs, "q" | "k"> {
  if (how === "rotated") {
    const signs = normals(inputs.headDim, seed).map(Math.sign);
    return { q: rotated(inputs.q, signs), k: rotated(inputs.k, signs) };
  }
  return { q: inputs.q, k: how === "as they are" ? inputs.k : withoutMean(inputs) };
}

/**
 * Rows times random signs, then times the Hadamard matrix over sqrt(D), which is orthogonal: products
 * of two rotated rows are those of the rows. D is a power of two.
 */
export function rotated(
  values: Float32Array<ArrayBuffer>,
  signs: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  const dim = signs.length;
  const result = new Float32Array(values.length);
  const row = new Float64Array(dim);
  for (let start = 0; start < values.length; start += dim) {
    for (let d = 0; d < dim; d++) row[d] = values[start + d] * signs[d];
    for (let half = 1; half < dim; half *= 2) {
      for (let d = 0; d < dim; d++) {
        if (d & half) continue;
        const [a, b] = [row[d], row[d + half]];
        row[d] = a + b;
        row[d + half] = a - b;
      }
    }
    for (let d = 0; d < dim; d++) result[start + d] = row[d] / Math.sqrt(dim);
  }
  return result;
}

/** Keys less their mean over the tokens: all logits of a query lose the same, which cancels out. */
function withoutMean({ k, numKvHeads, length, headDim: dim }: Inputs): Float32Array<ArrayBuffer> {
  const result = new Float32Array(k.length);
  for (let head = 0; head < numKvHeads; head++) {
    const first = head * length * dim;
    const mean = new Float64Array(dim);
    for (let i = 0; i < length * dim; i++) mean[i % dim] += k[first + i] / length;
    for (let i = 0; i < length * dim; i++) result[first + i] = k[first + i] - mean[i % dim];
  }
  return result;
}
