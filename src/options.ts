/**
 * The options of attention calls: their types, their defaults and their checks.
 *
 * @module
 */

import { OptionError } from "./errors.ts";
import { show } from "./shape.ts";

/**
 * The order of a cache's inner dims: `"NHD"` is (sequence, heads, dim), `"HND"` is
 * (heads, sequence, dim). q and the output are `[..., heads, dim]` in both.
 */
export type KvLayout = "NHD" | "HND";

/** Which position encoding attention applies to q and k. This version knows `"NONE"`. */
export type PosEncodingMode = "NONE";

/** Options of every decode call; names and defaults are FlashInfer's. */
export interface DecodeOptions {
  /** Layout of k and v. Default `"NHD"`. */
  kvLayout?: KvLayout;
  /** Position encoding inside attention. Default `"NONE"`: q and k come as they are to be used. */
  posEncodingMode?: PosEncodingMode;
  /** Scale of q·k before the softmax. Default `1 / sqrt(headDim)`. */
  smScale?: number;
  /** What a stored key must be multiplied with to be the real one. Default 1. */
  kScale?: number;
  /** What a stored value must be multiplied with to be the real one. Default 1. */
  vScale?: number;
  /** Whether to give the log-sum-exp (base 2) of each query and head too. Default false. */
  returnLse?: boolean;
}

/** Options of {@linkcode batchDecodeWithPaddedKvCache}. */
export interface PaddedDecodeOptions extends DecodeOptions {
  /**
   * Keys in use of each request: B integers from 0 to L. What lies behind them is never read. A
   * request of 0 keys gives 0, with an lse of -Infinity. Default: all L keys of every request.
   */
  seqLens?: ArrayLike<number>;
}

/** Decode options with their defaults filled in. */
export interface CheckedDecodeOptions {
  readonly kvLayout: KvLayout;
  readonly smScale: number;
  readonly kScale: number;
  readonly vScale: number;
  readonly returnLse: boolean;
  readonly seqLens: readonly number[] | undefined;
}

const DECODE_OPTIONS = [
  "kvLayout",
  "posEncodingMode",
  "smScale",
  "kScale",
  "vScale",
  "returnLse",
] as const;

/** What an options object may hold for `singleDecodeWithKvCache`. */
export const SINGLE_DECODE_OPTIONS: readonly string[] = DECODE_OPTIONS;
/** What an options object may hold for `batchDecodeWithPaddedKvCache`. */
export const PADDED_DECODE_OPTIONS: readonly string[] = [...DECODE_OPTIONS, "seqLens"];

/**
 * Checks decode options and fills in their defaults.
 *
 * @param options What the caller gave.
 * @param known The names that the call knows; another is a mistake that must not pass silently.
 * @param headDim For the default of `smScale`.
 */
export function checkDecodeOptions(
  options: PaddedDecodeOptions,
  known: readonly string[],
  headDim: number,
): CheckedDecodeOptions {
  if (typeof options !== "object" || options === null) {
    throw new OptionError("options", {
      got: show(options),
      expected: "an object",
      hint: `For example { kvLayout: "NHD", posEncodingMode: "NONE" }.`,
    });
  }
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    throw new OptionError(`options.${name}`, {
      got: "an option that this call does not know",
      expected: `one of ${known.join(", ")}`,
      hint: "Check the spelling; names are camelCase.",
    });
  }
  const mode = options.posEncodingMode ?? "NONE";
  if (mode !== "NONE") {
    throw new OptionError("options.posEncodingMode", {
      got: show(mode),
      expected: `"NONE"`,
      hint: "This version applies no position encoding: rotate q and k before the call.",
    });
  }
  return {
    kvLayout: checkLayout(options.kvLayout ?? "NHD"),
    smScale: checkNumber("options.smScale", options.smScale ?? 1 / Math.sqrt(Math.max(1, headDim))),
    kScale: checkNumber("options.kScale", options.kScale ?? 1),
    vScale: checkNumber("options.vScale", options.vScale ?? 1),
    returnLse: checkBoolean("options.returnLse", options.returnLse ?? false),
    seqLens: options.seqLens === undefined ? undefined : checkList(options.seqLens),
  };
}

function checkLayout(value: unknown): KvLayout {
  if (value === "NHD" || value === "HND") return value;
  throw new OptionError("options.kvLayout", {
    got: show(value),
    expected: `"NHD" or "HND"`,
    hint: "NHD is (sequence, heads, dim), HND is (heads, sequence, dim).",
  });
}

function checkNumber(subject: string, value: unknown): number {
  // The kernels compute in float32, where a scale must not become infinite.
  if (typeof value === "number" && Number.isFinite(Math.fround(value))) return value;
  throw new OptionError(subject, {
    got: show(value),
    expected: "a number that is finite in float32",
    hint: "Leave the option out for its default.",
  });
}

function checkBoolean(subject: string, value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw new OptionError(subject, {
    got: show(value),
    expected: "true or false",
    hint: "Leave the option out for its default.",
  });
}

function checkList(value: ArrayLike<number>): readonly number[] {
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    return Array.from(value);
  }
  throw new OptionError("options.seqLens", {
    got: show(value),
    expected: "an array or Int32Array of integers",
    hint: "Give one length a request, such as [17, 1024].",
  });
}
