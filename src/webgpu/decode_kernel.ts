/**
 * The decode kernel that a problem takes: the modules, constants and conditions that
 * shaders/decode.wgsl is linked with, and its name. Pure.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import type { Capabilities } from "./capabilities.ts";
import type { DecodeShape } from "./decode_shape.ts";
import { cacheFormat, inputModule, outputModule } from "./formats.ts";
import { type KernelRequest, oneOf } from "./kernels.ts";

/** The kernel of a problem laid out so, whose results are whole requests or, split, states. */
export function decodeKernel(
  problem: AttentionProblem,
  capabilities: Capabilities,
  shape: DecodeShape,
  isSplit: boolean,
): KernelRequest {
  const { rung, constants: c, pieceWords } = shape;
  const kv = cacheFormat(problem.kvDtype, capabilities);
  const outDtype = isSplit ? "float32" : problem.outDtype;
  const conditions = {
    subgroups: rung === "subgroups",
    padded: shape.isPadded,
    early: shape.tuning.early === 1,
    gather_memory: shape.gathersInMemory,
    paged: problem.pageTable !== null,
    one_lookup: c.LOOKUPS === 1,
    alike: sameStrides(problem),
    rope: problem.rope !== null,
    alibi: problem.alibiSlopes !== null,
    soft_cap: problem.logitsSoftCap !== null,
    sinks: problem.sinks !== null && !isSplit,
    nan_marks: kv.nanMarks,
    ...oneOf("piece", pieceWords),
    ...oneOf("quad", kv.quadWords),
  };
  const variants = (["paged", "rope", "alibi", "soft_cap", "sinks"] as const)
    .filter((name) => conditions[name]);
  const name = [
    `decode.${rung}`,
    `q-${problem.qDtype}`,
    `kv-${kv.module.replace("formats/", "")}`,
    `out-${outDtype}`,
    `d${problem.headDim}.heads${c.HEADS}x${c.PARTS}.team${c.TEAM}.piece${shape.pieceElements}`,
    `rows${c.ROWS}.wg${c.WORKGROUP}${conditions.early ? ".early" : ""}${
      conditions.gather_memory ? ".memory" : ""
    }`,
    ...variants,
    ...(conditions.paged ? [`page${c.PAGE_SIZE}by${c.LOOKUPS}`] : []),
    ...(conditions.alike ? [] : ["unlike"]),
  ].join(".");
  return {
    name,
    main: "decode",
    modules: ["address", "logits", "params", "pieces", "rope", "rows", "formats/rounding"],
    roles: {
      team: `team/${rung}`,
      kv_format: kv.module,
      q_format: inputModule(problem.qDtype),
      out_format: outputModule(outDtype),
    },
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
