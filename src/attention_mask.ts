/**
 * Masks of the caller's: checked, and from one bit after another to rows of words. Pure.
 *
 * @module
 */

import type { AttentionMask } from "./attention_problem.ts";
import { LimitError, OptionError } from "./errors.ts";
import { checkBoolean } from "./option_checks.ts";
import type { MaskOptions } from "./options.ts";
import { show } from "./shape.ts";

/** What a request has of a mask. */
export interface MaskedRequest {
  /** The size of its mask as it is given. */
  readonly rows: number;
  readonly columns: number;
  /** How many rows and columns are in use. */
  readonly qoLen: number;
  readonly kvLen: number;
}

/** What queries see. */
export interface Visibility {
  readonly causal: boolean;
  readonly mask: AttentionMask | null;
}

/** More words than this are refused: 4 GiB. */
const MOST_WORDS = 2 ** 30;

/** Checks `causal` and the masks, which replace it. */
export function checkVisibility(
  options: MaskOptions,
  requests: readonly MaskedRequest[],
): Visibility {
  const causal = checkBoolean("options.causal", options.causal ?? false);
  const { customMask, packedCustomMask } = options;
  if (customMask === undefined && packedCustomMask === undefined) return { causal, mask: null };
  if (customMask !== undefined && packedCustomMask !== undefined) {
    throw new OptionError("options.packedCustomMask", {
      got: "customMask as well",
      expected: "one of the two",
      hint: "Both say the same in different forms.",
    });
  }
  const bits = customMask === undefined
    ? checkPacked(packedCustomMask, requests)
    : pack(checkElements(customMask, requests), requests);
  return { causal: false, mask: toRows(bits, requests) };
}

function shapesOf(requests: readonly MaskedRequest[]): string {
  const shapes = requests.slice(0, 4).map(({ rows, columns }) => `${rows} x ${columns}`);
  if (requests.length > 4) shapes.push("...");
  return shapes.length === 0 ? "no request" : `masks of ${shapes.join(", ")}`;
}

function checkElements(
  mask: unknown,
  requests: readonly MaskedRequest[],
): ArrayLike<unknown> {
  const subject = "options.customMask";
  const hint = "Give a flat array, row after row of queries, request after request; " +
    "bits go to packedCustomMask.";
  const isList = Array.isArray(mask) || (ArrayBuffer.isView(mask) && !(mask instanceof DataView));
  if (!isList) {
    throw new OptionError(subject, {
      got: show(mask),
      expected: "an array of booleans, or of 0 and 1",
      hint,
    });
  }
  const { length } = mask as ArrayLike<unknown>;
  const expected = requests.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  if (length !== expected) {
    throw new OptionError(subject, {
      got: `${length} elements`,
      expected: `${expected}, for ${shapesOf(requests)}`,
      hint,
    });
  }
  return mask as ArrayLike<unknown>;
}

function bytesOf({ rows, columns }: MaskedRequest): number {
  return Math.ceil(rows * columns / 8);
}

function checkPacked(mask: unknown, requests: readonly MaskedRequest[]): Uint8Array {
  const subject = "options.packedCustomMask";
  if (!(mask instanceof Uint8Array)) {
    throw new OptionError(subject, {
      got: show(mask),
      expected: "a Uint8Array",
      hint: "Booleans go to customMask.",
    });
  }
  const expected = requests.reduce((sum, request) => sum + bytesOf(request), 0);
  if (mask.length === expected) return mask;
  throw new OptionError(subject, {
    got: `${mask.length} bytes`,
    expected: `${expected}, for ${shapesOf(requests)}`,
    hint: "Each request's mask begins with a byte of its own; its bits lie from the lowest up.",
  });
}

/** Packs elements into bits, each request from a byte of its own. */
function pack(elements: ArrayLike<unknown>, requests: readonly MaskedRequest[]): Uint8Array {
  const packed = new Uint8Array(requests.reduce((sum, request) => sum + bytesOf(request), 0));
  let [from, firstByte] = [0, 0];
  for (const request of requests) {
    const count = request.rows * request.columns;
    for (let i = 0; i < count; i++) {
      const element = elements[from + i];
      if (element === true || element === 1) packed[firstByte + Math.floor(i / 8)] |= 1 << (i % 8);
      else if (element !== false && element !== 0) throw notABit(from + i, element);
    }
    from += count;
    firstByte += bytesOf(request);
  }
  return packed;
}

function notABit(index: number, element: unknown): OptionError {
  return new OptionError(`options.customMask[${index}]`, {
    got: show(element),
    expected: "true, false, 1 or 0",
    hint: "A mask says which keys are seen; biases cannot be given.",
  });
}

/** Lays the rows in use out as {@linkcode AttentionMask} says. */
function toRows(bits: Uint8Array, requests: readonly MaskedRequest[]): AttentionMask {
  const firstWords = new Uint32Array(requests.length);
  let total = 0;
  requests.forEach(({ qoLen, kvLen }, request) => {
    firstWords[request] = total;
    total += qoLen * Math.ceil(kvLen / 32);
  });
  if (total > MOST_WORDS) {
    throw new LimitError("options.customMask", {
      got: `a mask of ${4 * total} bytes, with rows that begin at words`,
      expected: `at most ${4 * MOST_WORDS}`,
      hint: "Split the batch.",
    });
  }
  const words = new Uint32Array(total);
  let [word, firstByte] = [0, 0];
  for (const request of requests) {
    for (let row = 0; row < request.qoLen; row++) {
      const firstBit = 8 * firstByte + row * request.columns;
      for (let key = 0; key < request.kvLen; key += 32) {
        const inUse = Math.min(32, request.kvLen - key);
        words[word++] = readBits(bits, firstBit + key) & (0xffffffff >>> (32 - inUse));
      }
    }
    firstByte += bytesOf(request);
  }
  return { words, firstWords };
}

/** 32 bits from any place; those behind the end are 0. */
function readBits(bytes: Uint8Array, firstBit: number): number {
  const byte = Math.floor(firstBit / 8); // a shift would lose what is above 2^31
  const shift = firstBit % 8;
  const low = bytes[byte] | bytes[byte + 1] << 8 | bytes[byte + 2] << 16 | bytes[byte + 3] << 24;
  return shift === 0 ? low : low >>> shift | bytes[byte + 4] << (32 - shift);
}
