/**
 * Scales of each token and KV head: drawn for a padded case, with NaN for tokens that no request has, and
 * as the tensors that calls take.
 *
 * @module
 */

import type { Device, Tensor } from "@kvasir/attention";
import type { AttentionCase } from "./oracle.ts";
import { uniform } from "./values.ts";

/** The sizes of a padded cache. */
type Sizes = Pick<AttentionCase, "numRequests" | "numKvHeads" | "maxKvLen" | "kvLens">;

/** Where a scale is: part 0 is k's, 1 is v's. */
export function scaleIndex(
  { numKvHeads, maxKvLen }: Pick<Sizes, "numKvHeads" | "maxKvLen">,
  request: number,
  part: number,
  head: number,
  token: number,
): number {
  return ((request * numKvHeads + head) * maxKvLen + token) * 2 + part;
}

/** Scales from 1/4 to 4, `[requests, heads, tokens, 2]`. */
export function drawTokenScales(sizes: Sizes, seed: number): Float32Array {
  const { numRequests, numKvHeads, maxKvLen, kvLens } = sizes;
  const random = uniform(7000 + seed);
  return Float32Array.from({ length: numRequests * 2 * numKvHeads * maxKvLen }, (_, i) => {
    const request = Math.floor(i / (2 * numKvHeads * maxKvLen));
    const scale = 2 ** (4 * random() - 2);
    return Math.floor(i / 2) % maxKvLen < (kvLens?.[request] ?? maxKvLen) ? scale : NaN;
  });
}

/** The option of a padded call, or with `isSingle` of one without a batch. */
export function paddedScales(
  device: Device,
  p: AttentionCase,
  isSingle = false,
): { readonly kvScales: Tensor } | Record<string, never> {
  if (!p.kvScales) return {};
  const shape = [p.numKvHeads, p.maxKvLen, 2];
  const kvScales = device.tensor(
    p.kvScales,
    isSingle ? shape : [p.numRequests, ...shape],
    "float32",
  );
  return { kvScales };
}

/** The scales of tokens in other places, in an array of so many pairs that is NaN elsewhere. */
export function movedScales(
  p: AttentionCase,
  kvLens: readonly number[],
  pairs: number,
  pairOf: (request: number, head: number, token: number) => number,
): Float32Array {
  const moved = new Float32Array(2 * pairs).fill(NaN);
  kvLens.forEach((length, request) => {
    for (let token = 0; token < length; token++) {
      for (let head = 0; head < p.numKvHeads; head++) {
        const from = scaleIndex(p, request, 0, head, token);
        moved.set(p.kvScales!.subarray(from, from + 2), 2 * pairOf(request, head, token));
      }
    }
  });
  return moved;
}
