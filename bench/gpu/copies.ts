/**
 * Copies of a kernel's inputs, which are read in turn so that none comes from a cache.
 *
 * @module
 */

import type { Dispatch } from "../../src/webgpu/dispatch.ts";

/** More than any cache holds: what is read in turn is read from memory. */
const LARGER_THAN_CACHE = 256 * 2 ** 20;
const MOST_COPIES = 16;

/** How many copies of inputs of `bytes` a case needs. */
export function copiesOf(bytes: number): number {
  return Math.min(MOST_COPIES, Math.ceil(LARGER_THAN_CACHE / bytes));
}

/**
 * The same dispatches with some buffers replaced. All else the copies share, the output above all: it
 * makes each call wait for the one before it, as the steps of a model do.
 */
export function overCopy(
  dispatches: readonly Dispatch[],
  replaced: readonly (readonly [GPUBuffer, GPUBuffer])[],
): Dispatch[] {
  const moved = new Map(replaced);
  return dispatches.map((dispatch) => ({
    ...dispatch,
    resources: dispatch.resources.map((resource) => ({
      ...resource,
      buffer: moved.get(resource.buffer) ?? resource.buffer,
    })),
  }));
}
