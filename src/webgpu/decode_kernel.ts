/**
 * The decode kernel that a problem takes: the modules, constants and conditions that
 * shaders/decode.wgsl is linked with, and its name. Pure.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { Capabilities } from "./capabilities.ts";
import type { DecodeShape } from "./decode_shape.ts";
import { inputModule, outputModule } from "./formats.ts";
import type { KernelRequest } from "./kernels.ts";
import { cacheFormats, formatNames, pieceParts } from "./piece_parts.ts";

/** The kernel of a problem laid out so, whose results are whole requests or, split, states. */
export function decodeKernel(
  problem: AttentionProblem,
  capabilities: Capabilities,
  shape: DecodeShape,
  isSplit: boolean,
): KernelRequest {
  const { rung, constants: c } = shape;
  const formats = cacheFormats(problem, capabilities);
  const pieces = pieceParts(formats, shape.pieceElements);
  const outDtype = isSplit ? "float32" : problem.outDtype;
  const conditions = {
    subgroups: rung === "subgroups",
    padded: shape.isPadded,
    early: shape.tuning.early === 1,
    gather_memory: shape.gathersInMemory,
    paged: problem.pageTable !== null,
    one_lookup: c.LOOKUPS === 1,
    alike: sameStrides(problem) && (problem.pageTable !== null || shape.tuning.shared === 1),
    rope: problem.rope !== null,
    alibi: problem.alibiSlopes !== null,
    soft_cap: problem.logitsSoftCap !== null,
    sinks: problem.sinks !== null && !isSplit,
    token_scales: problem.kvScales !== null,
    ...pieces.conditions,
  };
  const variants = (["paged", "token_scales", "rope", "alibi", "soft_cap", "sinks"] as const)
    .filter((name) => conditions[name]);
  const name = [
    `decode.${rung}`,
    `q-${problem.qDtype}`,
    formatNames(formats),
    `out-${outDtype}`,
    `d${problem.headDim}.heads${c.HEADS}x${c.PARTS}.team${c.TEAM}.piece${shape.pieceElements}`,
    `rows${c.ROWS}.wg${c.WORKGROUP}${conditions.early ? ".early" : ""}${
      conditions.gather_memory ? ".memory" : ""
    }`,
    ...variants,
    ...(conditions.paged ? [`page${c.PAGE_SIZE}by${c.LOOKUPS}`] : []),
    ...(conditions.alike ? ["alike"] : []),
  ].join(".");
  return {
    name,
    main: "decode",
    modules: [
      ...["address", "logits", "params", "rope", "rows", "formats/rounding"],
      ...(conditions.token_scales ? ["token_scales"] : []),
    ],
    roles: {
      team: `team/${rung}`,
      ...pieces.roles,
      q_format: inputModule(problem.qDtype, capabilities),
      out_format: outputModule(outDtype),
    },
    instances: pieces.instances,
    constants: { ...c, PAGE_SIZE: conditions.paged ? c.PAGE_SIZE : 1 },
    conditions,
    bindings: ["uniform", "read", "read", "read", "read", "write", "write", "read", "read"],
  };
}

/** Whether a key and its value lie at the same place of their pages. */
function sameStrides({ kStrides, vStrides }: AttentionProblem): boolean {
  return kStrides.page === vStrides.page && kStrides.token === vStrides.token;
}

/** Why the kernel is laid out so. */
export function reasonOf(
  { numQoHeads, numKvHeads }: AttentionProblem,
  { subgroupsReason }: Capabilities,
  { constants: c }: DecodeShape,
): string {
  return `${subgroupsReason}; ${c.HEADS * c.PARTS} places for the ${
    numQoHeads / numKvHeads
  } query ` +
    `heads of a KV head share each cache row, which ${c.TEAM} lanes hold`;
}
