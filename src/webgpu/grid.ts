/**
 * Grids of workgroups.
 *
 * @module
 */

import { LimitError } from "../errors.ts";
import type { DispatchLimits } from "./capabilities.ts";

/** Spreads `count` workgroups over x and y: a dimension takes 65,535 by WebGPU's default. */
export function foldGrid(
  count: number,
  { maxComputeWorkgroupsPerDimension: limit }: DispatchLimits,
): readonly [number, number] {
  const y = Math.ceil(count / limit);
  if (y > limit) {
    throw new LimitError("q", {
      got: `${count} workgroups (requests times heads)`,
      expected: `at most ${limit * limit}`,
      hint: "Split the batch.",
    });
  }
  return [Math.ceil(count / Math.max(1, y)), y];
}
