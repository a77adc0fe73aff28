/**
 * Planning of the merge kernel: from a problem to constants, roles and grid. Pure.
 *
 * @module
 */

import { KEEP_ROW, type MergeProblem } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import { LimitError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import { inputModule, outputModule } from "./formats.ts";
import { foldGrid } from "./grid.ts";
import type { KernelRequest } from "./kernels.ts";

/** A dispatch of shaders/merge.wgsl. */
export interface MergePlan {
  readonly kernel: KernelRequest;
  readonly rows: Uint32Array<ArrayBuffer>;
  readonly numWork: number;
  readonly numHeads: number;
  readonly lseScale: number;
  readonly grid: readonly [number, number];
}

/** What ends a split decode beside the merge itself. */
export interface MergeOptions {
  readonly hasSinks?: boolean;
  readonly lseScale?: number;
}

const QUAD = 4;
/** Lanes of a workgroup: many for many states, which its teams share; few else. */
const MOST_LANES = 256;
const LEAST_LANES = 64;
/** States that a team has in flight. */
const UNROLL = 4;

/** Plans a merge. Throws `LimitError`. */
export function planMerge(
  problem: MergeProblem,
  capabilities: Capabilities,
  { hasSinks = false, lseScale = 1 }: MergeOptions = {},
): MergePlan {
  const { numRows, numHeads, headDim, vDtype, outDtype, rows } = problem;
  if (headDim % QUAD !== 0) {
    throw new LimitError("v", {
      got: `a head dim of ${headDim}`,
      expected: `a multiple of ${QUAD} on WebGPU`,
      hint: "Pad the heads with zeros, or use the WASM backend.",
    });
  }
  const quads = headDim / QUAD;
  const most = Math.min(MOST_LANES, capabilities.limits.maxComputeInvocationsPerWorkgroup);
  const team = 2 ** Math.ceil(Math.log2(quads));
  if (team > most) {
    throw new LimitError("v", {
      got: `a head dim of ${headDim}`,
      expected: `at most ${most * QUAD} on this device`,
      hint: "Use the WASM backend.",
    });
  }
  const limit = capabilities.limits.maxStorageBufferBindingSize;
  const largest = statesOf(rows) * numHeads * headDim * bytesPerElement(vDtype);
  if (largest > limit) {
    throw new LimitError("v", {
      got: `${largest} bytes of states`,
      expected: `at most ${limit}, this device's maxStorageBufferBindingSize`,
      hint: "Merge fewer rows at a time.",
    });
  }
  const numWork = numRows * numHeads;
  const teams = 2 ** Math.ceil(Math.log2(mostStates(rows) / UNROLL));
  const teamsOfPair = Math.max(1, Math.min(teams, most / team));
  const keeps = rows.some((word, i) => i % 4 === 1 && word === KEEP_ROW);
  const pairs = Math.max(1, Math.floor(LEAST_LANES / (team * teamsOfPair)));
  return {
    kernel: {
      name: `merge.v-${vDtype}.out-${outDtype}.d${headDim}.teams${teamsOfPair}` +
        (hasSinks ? ".sinks" : "") + (keeps ? ".keeps" : ""),
      main: "merge",
      modules: ["formats/rounding"],
      roles: { v_format: inputModule(vDtype, capabilities), out_format: outputModule(outDtype) },
      constants: {
        PAIRS: pairs,
        QUADS: quads,
        TEAM: team,
        TEAMS: teamsOfPair,
        UNROLL,
        WORKGROUP: pairs * teamsOfPair * team,
      },
      conditions: { sinks: hasSinks, keeps },
      bindings: ["uniform", ...BINDINGS, ...(hasSinks ? ["read" as const] : [])],
    },
    rows,
    numWork,
    numHeads,
    lseScale,
    grid: foldGrid(Math.ceil(numWork / pairs), capabilities.limits),
  };
}

const BINDINGS = ["read", "read", "read", "read", "read", "write", "write"] as const;

/** The largest row of either source that is named, and one. */
function statesOf(rows: Uint32Array): number {
  let states = 0;
  for (let at = 0; at < rows.length; at += 4) {
    const [firstA, countA, firstB, countB] = rows.subarray(at, at + 4);
    states = Math.max(states, firstA + (countA === KEEP_ROW ? 1 : countA), firstB + countB);
  }
  return states;
}

/** The most states that one row of the result takes. */
function mostStates(rows: Uint32Array): number {
  let states = 1;
  for (let at = 0; at < rows.length; at += 4) {
    if (rows[at + 1] !== KEEP_ROW) states = Math.max(states, rows[at + 1] + rows[at + 3]);
  }
  return states;
}
