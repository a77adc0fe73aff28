/**
 * The pieces in which attention's kernels read k and v: shaders/pieces.wgsl, linked for each of the two,
 * whose formats may differ. Pure.
 *
 * @module
 */

import type { AttentionProblem } from "../attention_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import type { Capabilities } from "./capabilities.ts";
import { cacheFormat, type Format } from "./formats.ts";
import { type KernelRequest, oneOf } from "./kernels.ts";

/** How k and v are read. */
export interface CacheFormats {
  readonly k: Format;
  readonly v: Format;
  /** Bytes of an element of the wider of the two: a piece of it is at most 16. */
  readonly elementBytes: number;
  /** Whether NaN codes of either must be found beside it. */
  readonly nanMarks: boolean;
}

/** The formats of a problem. Throws `ShaderError` where a device has no exact way. */
export function cacheFormats(
  { kDtype, vDtype }: Pick<AttentionProblem, "kDtype" | "vDtype">,
  capabilities: Pick<Capabilities, "fp8">,
): CacheFormats {
  const [k, v] = [kDtype, vDtype].map((dtype) => cacheFormat(dtype, capabilities));
  return {
    k,
    v,
    elementBytes: Math.max(bytesPerElement(kDtype), bytesPerElement(vDtype)),
    nanMarks: k.nanMarks || v.nanMarks,
  };
}

/** The formats, as kernels' names have them. */
export function formatNames({ k, v }: CacheFormats): string {
  const [ofK, ofV] = [k, v].map(({ module }) => module.replace("formats/", ""));
  return ofK === ofV ? `kv-${ofK}` : `k-${ofK}.v-${ofV}`;
}

/** What a kernel that reads pieces of so many elements is linked with. */
export function pieceParts(
  { k, v }: CacheFormats,
  pieceElements: number,
): Pick<KernelRequest, "conditions" | "roles"> & Required<Pick<KernelRequest, "instances">> {
  const parts = (name: "k" | "v", { quadWords, nanMarks }: Format) => ({
    ...oneOf(`${name}_piece`, pieceElements / 4 * quadWords),
    ...oneOf(`${name}_quad`, quadWords),
    [`${name}_nan_marks`]: nanMarks,
  });
  return {
    instances: { k_pieces: instanceOf("k"), v_pieces: instanceOf("v") },
    roles: { k_format: k.module, v_format: v.module },
    conditions: { ...parts("k", k), ...parts("v", v) },
  };
}

/** The words of shaders/pieces.wgsl that are k's or v's own. */
function instanceOf(name: "k" | "v") {
  const own = [
    "piece_format",
    "nan_marks",
    ...["piece", "quad"].flatMap((x) => [1, 2, 4].map((n) => `${x}_${n}`)),
  ];
  const words = Object.fromEntries(
    own.map((word) => [word, `${name}_${word.replace("piece_format", "format")}`]),
  );
  return { file: "pieces", words };
}
