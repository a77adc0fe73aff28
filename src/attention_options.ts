/**
 * The options that all attention calls share: checked, with their defaults, as the backends take
 * them. Pure.
 *
 * @module
 */

import { alibiSlopes } from "./alibi.ts";
import type { AttentionProblem } from "./attention_problem.ts";
import { type DType, DTYPES, isFp8DType } from "./dtype.ts";
import { OptionError } from "./errors.ts";
import {
  checkArray,
  checkBoolean,
  checkHeadValues,
  checkInteger,
  checkNames,
  checkNumber,
  checkPositive,
  checkScale,
  checkWord,
} from "./option_checks.ts";
import type { AttentionOptions, KvLayout } from "./options.ts";

/** Options that say what is computed: those of plans are these. */
const COMPUTED_OPTIONS = [
  "posEncodingMode",
  "ropeScale",
  "ropeTheta",
  "smScale",
  "qScale",
  "kScale",
  "vScale",
  "kvScales",
  "outScale",
  "windowLeft",
  "logitsSoftCap",
  "sinks",
  "outDtype",
  "lseBase",
] as const;
const CALL_OPTIONS = ["kvLayout", ...COMPUTED_OPTIONS, "returnLse"] as const;
const PREFILL_OPTIONS = [
  "causal",
  "customMask",
  "packedCustomMask",
  "logitsTransform",
  "logitsMask",
  "variantParams",
] as const;

/** What an options object may hold for `singleDecodeWithKvCache`. */
export const SINGLE_DECODE_OPTIONS: readonly string[] = CALL_OPTIONS;
/** What an options object may hold for `batchDecodeWithPaddedKvCache`. */
export const PADDED_DECODE_OPTIONS: readonly string[] = [...CALL_OPTIONS, "seqLens"];
/** What an options object may hold for `singlePrefillWithKvCache`. */
export const SINGLE_PREFILL_OPTIONS: readonly string[] = [...CALL_OPTIONS, ...PREFILL_OPTIONS];
/** What an options object may hold for `batchPrefillWithPaddedKvCache`. */
export const PADDED_PREFILL_OPTIONS: readonly string[] = [
  ...SINGLE_PREFILL_OPTIONS,
  "qoLens",
  "seqLens",
];
/** The options among what a planned decode's `plan` takes. */
export const PLANNED_DECODE_OPTIONS: readonly string[] = COMPUTED_OPTIONS;
/** The options among what a planned prefill's `plan` takes. */
export const PLANNED_PREFILL_OPTIONS: readonly string[] = [...COMPUTED_OPTIONS, ...PREFILL_OPTIONS];
/** Options that may be tensors. */
export const TENSOR_OPTIONS = ["qScale", "kScale", "vScale", "sinks"] as const;

/** What the options say of a problem. */
export type AttentionSettings = Pick<
  AttentionProblem,
  | "outDtype"
  | "windowLeft"
  | "logitScales"
  | "outScales"
  | "rope"
  | "alibiSlopes"
  | "logitsSoftCap"
  | "sinks"
  | "lseScale"
>;

/** The sizes that options depend on. */
export interface HeadSizes {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** Checks the names of the options, and the layout, which says what the shapes mean. */
export function checkKvLayout(
  options: Pick<AttentionOptions, "kvLayout">,
  known: readonly string[],
): KvLayout {
  checkNames(options, known);
  const hint = "NHD is (sequence, heads, dim), HND is (heads, sequence, dim).";
  return checkWord("options.kvLayout", options.kvLayout ?? "NHD", ["NHD", "HND"], hint);
}

/** Checks whether lse is wanted. */
export function checkReturnLse(options: Pick<AttentionOptions, "returnLse">): boolean {
  return checkBoolean("options.returnLse", options.returnLse ?? false);
}

/** Checks all that the backends are to know. */
export function checkAttentionOptions(
  options: Omit<AttentionOptions, "kvScales">,
  { numQoHeads, numKvHeads, headDim }: HeadSizes,
  qDtype: DType,
): AttentionSettings {
  const mode = checkWord(
    "options.posEncodingMode",
    options.posEncodingMode ?? "NONE",
    ["NONE", "ROPE_LLAMA", "ALIBI"],
    "Names are FlashInfer's; NONE takes q and k as they are.",
  );
  const rope = {
    scale: checkPositive("options.ropeScale", options.ropeScale ?? 1),
    theta: checkPositive("options.ropeTheta", options.ropeTheta ?? 1e4),
  };
  if (mode === "ROPE_LLAMA" && headDim % 2 !== 0) {
    throw new OptionError("options.posEncodingMode", {
      got: `"ROPE_LLAMA" with a head dim of ${headDim}`,
      expected: "an even head dim",
      hint: "Rotary encoding turns pairs of dims.",
    });
  }
  const { qScale = 1, kScale = 1, vScale = 1, sinks } = options;
  const smScale = checkNumber("options.smScale", options.smScale ?? 1 / Math.sqrt(headDim));
  const q = checkHeadValues("options.qScale", qScale, numQoHeads, "query heads");
  const k = checkHeadValues("options.kScale", kScale, numKvHeads, "KV heads");
  const v = checkHeadValues("options.vScale", vScale, numKvHeads, "KV heads");
  const outScale = checkScale("options.outScale", options.outScale ?? 1);
  const group = numQoHeads / numKvHeads;
  const cap = checkPositive("options.logitsSoftCap", options.logitsSoftCap ?? 0, true);
  const windowLeft = checkInteger("options.windowLeft", options.windowLeft ?? -1, -1);
  const base = checkWord(
    "options.lseBase",
    options.lseBase ?? "log2",
    ["log2", "ln"],
    "log2 is FlashInfer's.",
  );
  return {
    outDtype: checkOutDtype(options.outDtype, qDtype),
    windowLeft: windowLeft < 0 ? null : windowLeft,
    logitScales: q.map((scale, head) =>
      checkProduct(smScale * scale * k[Math.floor(head / group)])
    ),
    outScales: q.map((_, head) => checkOutScale(v[Math.floor(head / group)] / outScale)),
    rope: mode === "ROPE_LLAMA" ? rope : null,
    alibiSlopes: mode === "ALIBI" ? alibiSlopes(numQoHeads) : null,
    logitsSoftCap: cap === 0 ? null : cap,
    sinks: sinks === undefined
      ? null
      : checkHeadValues("options.sinks", checkSinks(sinks), numQoHeads, "query heads"),
    lseScale: base === "ln" ? Math.LN2 : 1,
  };
}

function checkSinks(sinks: unknown): ArrayLike<unknown> {
  return checkArray("options.sinks", sinks, "Give one logit for each query head.");
}

function checkProduct(scale: number): number {
  if (Number.isFinite(Math.fround(scale))) return scale;
  throw new OptionError("options.smScale", {
    got: `a product of smScale, qScale and kScale of ${scale}`,
    expected: "a number that is finite in float32",
    hint: "Scale q or k before the call.",
  });
}

function checkOutScale(scale: number): number {
  if (Number.isFinite(Math.fround(scale))) return scale;
  throw new OptionError("options.outScale", {
    got: `vScale / outScale of ${scale}`,
    expected: "a number that is finite in float32",
    hint: "outScale is what stored outputs are multiplied with to be the real ones.",
  });
}

function checkOutDtype(value: unknown, qDtype: DType): DType {
  if (value === undefined) return isFp8DType(qDtype) ? "float16" : qDtype;
  return checkWord("options.outDtype", value, DTYPES, "Leave it out for q's dtype.");
}
