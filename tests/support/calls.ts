/**
 * Every call of attention, with a small problem for each: what must hold in all of them is tested over
 * this list.
 *
 * @module
 */

import { runCascade, type SharedPrefix, shareKeys } from "./cascade.ts";
import { runDecode, runSingleDecode } from "./decode.ts";
import { runPagedDecode, runPagedPrefill } from "./paged.ts";
import {
  makePrefill,
  type PrefillInputs,
  type PrefillRun,
  type PrefillSpec,
  runPrefill,
  runSinglePrefill,
} from "./prefill.ts";
import { runRagged } from "./ragged.ts";

/** A call and its problem. */
export interface Call {
  readonly spec: PrefillSpec;
  readonly run: PrefillRun;
  /** Tokens that all requests begin with, of which the call has one copy. */
  readonly shared: readonly SharedPrefix[];
}

const DECODE: PrefillSpec = {
  batch: 5,
  qoLen: 1,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  seqLens: [70, 33, 0, 64, 1],
};
const PREFILL: PrefillSpec = { ...DECODE, qoLen: 19, qoLens: [19, 5, 3, 0, 1], causal: true };
const SINGLE = { batch: 1, seqLens: undefined, qoLens: undefined } as const;
const CASCADE: PrefillSpec = {
  ...DECODE,
  qoLen: 4,
  qoLens: [1, 4, 0, 1, 3],
  seqLens: [70, 61, 46, 40, 48],
};
const SPLIT = { ...DECODE, batch: 2, kvLen: 3000, seqLens: [3000, 1777] } as const;

function call(spec: PrefillSpec, run: PrefillRun, shared: readonly SharedPrefix[] = []): Call {
  return { spec, run, shared };
}

/** Every call, by a name for tests. */
export const CALLS: Readonly<Record<string, Call>> = {
  "decode of one request": call({ ...DECODE, ...SINGLE }, runSingleDecode),
  "padded decode": call(DECODE, runDecode),
  "paged decode": call(DECODE, runPagedDecode({ pageSize: 16 })),
  "prefill of one request": call({ ...PREFILL, ...SINGLE }, runSinglePrefill),
  "padded prefill": call(PREFILL, runPrefill),
  "ragged prefill": call(PREFILL, runRagged),
  "paged prefill": call(PREFILL, runPagedPrefill({ pageSize: 5 })),
  "cascade": cascade([{ tokens: 40, groups: [0] }]),
};

/** Calls whose keys a GPU splits. */
export const SPLIT_CALLS: Readonly<Record<string, Call>> = {
  "padded decode, split": call(SPLIT, runDecode),
  "paged decode, split": call(SPLIT, runPagedDecode({ pageSize: 16 })),
  "padded prefill, split": call({ ...SPLIT, qoLen: 9, causal: true }, runPrefill),
};

function cascade(shared: readonly SharedPrefix[]): Call {
  return call(CASCADE, runCascade(7, shared), shared);
}

/** The inputs of a call, with a spec of its own or another; shared tokens are the same in all requests. */
export function inputsOf({ spec, shared }: Call, other: PrefillSpec = spec): PrefillInputs {
  const inputs = makePrefill(other);
  shareKeys(inputs, shared);
  return inputs;
}
