/**
 * Planning of the append kernel: from a problem to constants, and to dispatches that each see as many
 * pages of the cache as a binding holds. Pure.
 *
 * @module
 */

import { type AppendProblem, SLOT_WORDS } from "../append_problem.ts";
import { bytesPerElement, type DType, type Fp8DType } from "../dtype.ts";
import { LimitError } from "../errors.ts";
import { LARGEST_NUMBER } from "../row_scale.ts";
import type { Capabilities, DispatchLimits } from "./capabilities.ts";
import {
  convertingParts,
  pieceElements,
  pieceQuads,
  roundingName,
  type WaysOfRounding,
} from "./convert_pieces.ts";
import type { Window } from "./decode_windows.ts";
import { foldGrid } from "./grid.ts";
import type { KernelRequest } from "./kernels.ts";
import { checkScales } from "./scale_limits.ts";

/** The tokens of some pages. */
export interface AppendDispatch {
  /** The first page that it may write to. */
  readonly firstPage: number;
  /** Its tokens, by their rows in the appended tensors. */
  readonly tokens: readonly number[];
  /** What of the caches it sees; null is all. Of v too where it lies in k's tensor. */
  readonly windows: { readonly k: Window; readonly v: Window } | null;
  /** Lanes with work, or rows where they have scales of their own, and how many of them take keys. */
  readonly numWork: number;
  readonly keyWork: number;
  readonly grid: readonly [number, number];
}

/** Keys and values together, or where their dtypes differ one after the other. */
export interface AppendPlan {
  readonly passes: readonly AppendPass[];
}

/** Dispatches of shaders/append.wgsl, or of append_scaled.wgsl where tokens have scales. */
export interface AppendPass {
  readonly kernel: KernelRequest;
  /** Elements of a piece, in which the kernel counts. */
  readonly pieceElements: number;
  readonly dispatches: readonly AppendDispatch[];
}

/** Row lengths that kernels take: rotary encoding halves them, and a word of FP8 holds four. */
const ROW_STEP = 8;
const WORKGROUP = 256;
/** Lanes that hold a row with a scale of its own; longer rows take more pieces a lane. */
const MOST_TEAM = 32;

/** Plans an append. Throws `LimitError`. */
export function planAppend(
  problem: AppendProblem,
  capabilities: Capabilities,
  rounding: WaysOfRounding,
): AppendPlan {
  checkLimits(problem, capabilities.limits);
  const { kDtype, vDtype } = problem;
  const stretches = tokensByPages(problem, capabilities.limits);
  const pass = (stored: DType, parts: readonly ("k" | "v")[]) =>
    planPass(problem, capabilities, rounding, stretches, { stored, parts });
  return {
    passes: kDtype === vDtype
      ? [pass(kDtype, ["k", "v"])]
      : [pass(kDtype, ["k"]), pass(vDtype, ["v"])],
  };
}

/** What a pass stores, and as what. */
interface Stored {
  readonly stored: DType;
  readonly parts: readonly ("k" | "v")[];
}

function planPass(
  problem: AppendProblem,
  capabilities: Capabilities,
  rounding: WaysOfRounding,
  stretches: readonly PageStretch[],
  { stored, parts: own }: Stored,
): AppendPass {
  const { numKvHeads, headDim, headDimV, dtype, kFactors, vFactors, rope } = problem;
  const hasOwnScales = problem.kvScales !== null;
  const isScaled = hasOwnScales || kFactors !== null || vFactors !== null;
  const isJoined = problem.vOffset !== null;
  const conversion = { from: dtype, to: stored, isScaled };
  const quads = pieceQuads(conversion, [rope ? headDim / 2 : headDim, headDimV]);
  const parts = convertingParts(conversion, quads, { fp8: capabilities.fp8, rounding });
  const elements = pieceElements(quads);
  const keyPieces = headDim / elements;
  const keyLanes = rope ? keyPieces / 2 : keyPieces;
  const valuePieces = headDimV / elements;
  const teams = teamConstants(keyLanes, valuePieces, rope !== null);
  // Rows that meet for their maximum are whole teams of lanes, others are lanes alone.
  const [keyUnits, valueUnits] = hasOwnScales ? [1, 1] : [keyLanes, valuePieces];
  const unitsPerWorkgroup = hasOwnScales ? teams.TEAMS : WORKGROUP;
  const dispatches = stretches.map(({ firstPage, tokens, windows }): AppendDispatch => {
    const rows = tokens.length * numKvHeads;
    const keyWork = own.includes("k") ? rows * keyUnits : 0;
    const numWork = keyWork + (own.includes("v") ? rows * valueUnits : 0);
    const grid = foldGrid(Math.ceil(numWork / unitsPerWorkgroup), capabilities.limits);
    return { firstPage, tokens, windows, numWork, keyWork, grid };
  });
  return {
    kernel: {
      name: `append.${dtype}.kv-${stored}.d${headDim}.dv${headDimV}` +
        (isJoined ? ".joined" : "") + (hasOwnScales ? ".tokens" : isScaled ? ".scaled" : "") +
        (rope ? ".rope" : "") +
        roundingName(rounding),
      main: hasOwnScales ? "append_scaled" : "append",
      ...parts,
      modules: [
        ...parts.modules,
        "append/rows",
        ...(hasOwnScales ? ["append/row_scale"] : []),
        ...(rope ? ["rope"] : []),
      ],
      roles: { ...parts.roles, params: "append/params" },
      constants: {
        ...parts.constants,
        KEY_LANES: keyLanes,
        KEY_PIECES: keyPieces,
        ROPE_QUADS: headDim / 8,
        VALUE_PIECES: valuePieces,
        WORKGROUP,
        ...(hasOwnScales
          ? { ...teams, EXPONENT: Math.floor(Math.log2(LARGEST_NUMBER[stored as Fp8DType])) }
          : {}),
      },
      conditions: { ...parts.conditions, joined: isJoined, rope: rope !== null },
      bindings: hasOwnScales ? SCALING_BINDINGS : BINDINGS,
    },
    pieceElements: elements,
    dispatches,
  };
}

const BINDINGS = [
  "uniform",
  ...["read", "read", "read", "read"] as const,
  ...["write", "write"] as const,
  ...["read", "read"] as const,
] as const;

/** The scales are written. */
const SCALING_BINDINGS = BINDINGS.with(7, "write");

/** How teams of lanes hold rows: a key's lanes hold pairs of pieces where it is turned. */
function teamConstants(keyLanes: number, valuePieces: number, isTurned: boolean) {
  const most = Math.max(keyLanes, valuePieces);
  const team = Math.min(MOST_TEAM, 2 ** Math.ceil(Math.log2(most)));
  const keySlots = Math.ceil(keyLanes / team) * (isTurned ? 2 : 1);
  const valueSlots = Math.ceil(valuePieces / team);
  return {
    TEAM: team,
    TEAMS: WORKGROUP / team,
    KEY_SLOTS: keySlots,
    VALUE_SLOTS: valueSlots,
    SLOTS: Math.max(keySlots, valueSlots),
  };
}

function checkLimits(problem: AppendProblem, limits: DispatchLimits): void {
  const { numTokens, numKvHeads, headDim, headDimV, dtype } = problem;
  const odd = [headDim, headDimV].find((dim) => dim % ROW_STEP !== 0);
  if (odd !== undefined) {
    throw new LimitError("kvCache", {
      got: `a head dim of ${odd}`,
      expected: `a multiple of ${ROW_STEP} on WebGPU`,
      hint: "Pad the heads with zeros, or use the WASM backend.",
    });
  }
  checkScales(problem, problem.numPages, limits);
  const rows = numTokens * numKvHeads * Math.max(headDim, headDimV) * bytesPerElement(dtype);
  const most = bindingBytes(limits);
  if (rows <= most) return;
  throw new LimitError(headDim >= headDimV ? "appendKey" : "appendValue", {
    got: `${rows} bytes`,
    expected: `at most ${most}, what this device binds at once`,
    hint: "Append fewer tokens at a time.",
  });
}

/** The most bytes of a binding: they are whole granules of 16. */
function bindingBytes({ maxStorageBufferBindingSize: most }: DispatchLimits): number {
  return most - most % 16;
}

/** Tokens of pages that bindings hold. */
type PageStretch = Pick<AppendDispatch, "firstPage" | "tokens" | "windows">;

/** The tokens of each stretch of pages that bindings hold. */
function tokensByPages(problem: AppendProblem, limits: DispatchLimits): PageStretch[] {
  const { numTokens, numPages, slots, kStrides, vStrides, kDtype, vDtype } = problem;
  if (numTokens === 0) return [];
  const pageBytes = {
    k: kStrides.page * bytesPerElement(kDtype),
    v: vStrides.page * bytesPerElement(vDtype),
  };
  const largest = Math.max(pageBytes.k, pageBytes.v);
  const { minStorageBufferOffsetAlignment: alignment } = limits;
  const most = bindingBytes(limits);
  const all = Array.from({ length: numTokens }, (_, token) => token);
  if (numPages * largest <= most) return [{ firstPage: 0, tokens: all, windows: null }];
  const step = Math.floor((most - alignment) / largest); // a window begins before its first page
  if (step < 1) {
    throw new LimitError("kvCache", {
      got: `pages of ${largest} bytes`,
      expected: `at most ${most - alignment}, what this device binds at once`,
      hint: "Use smaller pages.",
    });
  }
  const byStretch = Map.groupBy(all, (token) => Math.floor(slots[token * SLOT_WORDS] / step));
  return [...byStretch].map(([stretch, tokens]) => {
    const firstPage = stretch * step;
    const end = Math.min(numPages, firstPage + step);
    const window = (size: number): Window => {
      const offset = Math.floor(firstPage * size / alignment) * alignment;
      return { offset, size: end * size - offset };
    };
    return { firstPage, tokens, windows: { k: window(pageBytes.k), v: window(pageBytes.v) } };
  });
}
