/**
 * A sequence of a KV cache as bytes, to be kept or sent: independent of the cache's page size, of its
 * layout and of the machine. Pure.
 *
 * All numbers are little-endian:
 *
 * | At | Bytes | What |
 * |---|---|---|
 * | 0 | 8 | 0x89 "KVASIR" 0x0A; the first and the last find files that passed as text |
 * | 8 | 4 | version: 1, or 2 where tokens have scales or k and v different dtypes |
 * | 12 | 1 | k's dtype: 0 float32, 1 float16, 2 bfloat16, 3 float8_e4m3fn, 4 float8_e5m2 |
 * | 13 | 1 | with version 2 v's dtype, else 0 |
 * | 14 | 2 | with version 2 1 where tokens have scales, else 0 |
 * | 16 | 4 | layers |
 * | 20 | 4 | KV heads |
 * | 24 | 4 | head dim of k |
 * | 28 | 4 | head dim of v |
 * | 32 | 8 | tokens |
 * | 40 | 8 | bytes of the payload |
 * | 48 | 4 | CRC-32 of the payload |
 * | 52 | 4 | CRC-32 of bytes 0 to 51 |
 * | 56 | | payload: of each layer k, then v, of each token, head, dim; then the scales of tokens in
 * float32, of each token, head, k's and v's |
 *
 * @module
 */

import { crc32 } from "./crc32.ts";
import { bytesPerElement, type DType, isDType, type KvDTypes } from "./dtype.ts";
import { DTypeError, OptionError, OutOfMemoryError } from "./errors.ts";
import { checkBoolean, checkInteger } from "./option_checks.ts";
import { show } from "./shape.ts";

/** What a saved sequence says of itself. */
export interface SavedHeader extends KvDTypes {
  readonly numLayers: number;
  readonly numKvHeads: number;
  readonly headDimK: number;
  readonly headDimV: number;
  /** Whether each token and head has scales. */
  readonly tokenScales: boolean;
  /** May be 0. */
  readonly tokens: number;
}

/** A saved sequence, read. */
export interface SavedSequence {
  readonly header: SavedHeader;
  /**
   * Of each layer k, then v, each `[tokens, numKvHeads, headDim]`, then with `tokenScales` the scales,
   * `[tokens, numKvHeads, 2]`. A view of the bytes read.
   */
  readonly payload: Uint8Array;
}

const MAGIC = [0x89, 0x4b, 0x56, 0x41, 0x53, 0x49, 0x52, 0x0a];
/** The second is newer only in what the first does not have, so older readers refuse what they cannot read. */
const VERSIONS: readonly number[] = [1, 2];
const HEADER_BYTES = 56;

/** By their codes, which do not change any more. */
const DTYPE_CODES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];

/** The integers before the tokens, which are uint32. */
const SIZES = ["numLayers", "numKvHeads", "headDimK", "headDimV"] as const;

/** The parts of a layer, in the order of the payload. */
const PARTS = ["k", "v", "scales"] as const;

/**
 * Where a part of a layer lies in the payload.
 *
 * @returns Its first byte, and the first after it.
 */
export function savedPart(
  header: SavedHeader,
  layer: number,
  part: typeof PARTS[number],
): [begin: number, end: number] {
  const rows = header.tokens * header.numKvHeads;
  const sizes = [
    rows * bytesPerElement(header.kDtype) * header.headDimK,
    rows * bytesPerElement(header.vDtype) * header.headDimV,
    header.tokenScales ? 2 * rows * 4 : 0,
  ];
  const sum = (values: readonly number[]) => values.reduce((all, size) => all + size, 0);
  const at = PARTS.indexOf(part);
  const begin = layer * sum(sizes) + sum(sizes.slice(0, at));
  return [begin, begin + sizes[at]];
}

/**
 * Writes a sequence.
 *
 * @param header What it is.
 * @param parts The payload, in order, cut anywhere.
 * @throws {OptionError} or `DTypeError` when the header or the payload does not fit;
 *   `OutOfMemoryError`.
 */
export function encodeSequence(
  header: SavedHeader,
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  if (typeof header !== "object" || header === null) {
    throw new OptionError("header", {
      got: show(header),
      expected:
        "{ kDtype, vDtype, numLayers, numKvHeads, headDimK, headDimV, tokenScales, tokens }",
      hint: "Give what the cache was made with, and the sequence's length.",
    });
  }
  const fields = checkHeader(header);
  const size = payloadBytes(fields);
  const given = countBytes(parts);
  if (given !== size) {
    throw new OptionError("parts", {
      got: `${given} bytes`,
      expected: `${size}, by the header`,
      hint: "Give k, then v, of each layer: for each token, head and dim; then its scales, if any.",
    });
  }
  const bytes = allocate(HEADER_BYTES + size);
  let at = HEADER_BYTES;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  const { kDtype, vDtype, tokenScales } = fields;
  const isPlain = kDtype === vDtype && !tokenScales;
  view.setUint32(8, VERSIONS[isPlain ? 0 : 1], true);
  view.setUint8(12, DTYPE_CODES.indexOf(kDtype));
  if (!isPlain) {
    view.setUint8(13, DTYPE_CODES.indexOf(vDtype));
    view.setUint16(14, tokenScales ? 1 : 0, true);
  }
  SIZES.forEach((name, i) => view.setUint32(16 + 4 * i, fields[name], true));
  view.setBigUint64(32, BigInt(fields.tokens), true);
  view.setBigUint64(40, BigInt(size), true);
  view.setUint32(48, crc32(bytes.subarray(HEADER_BYTES)), true);
  view.setUint32(52, crc32(bytes.subarray(0, 52)), true);
  return bytes;
}

/**
 * Reads what {@linkcode encodeSequence} wrote. No byte is believed before its checksum.
 *
 * @param bytes All of it, and nothing more.
 * @returns The header, and the payload as a view of `bytes`.
 * @throws {OptionError} for bytes that are anything else: foreign, newer, cut or changed.
 */
export function decodeSequence(bytes: Uint8Array): SavedSequence {
  if (!(bytes instanceof Uint8Array)) {
    throw unfit(show(bytes), "a Uint8Array", "Give the bytes of a saved sequence.");
  }
  const begin = bytes.subarray(0, MAGIC.length);
  if (begin.length === 0 || begin.some((byte, i) => byte !== MAGIC[i])) {
    throw unfit(
      begin.length === 0 ? "no bytes" : `bytes that begin with ${hex(begin)}`,
      `a saved sequence, which begins with ${hex(MAGIC)}`,
      "This is something else, or was changed on its way; send it as binary.",
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length >= 12 && !VERSIONS.includes(view.getUint32(8, true))) {
    throw unfit(
      `version ${view.getUint32(8, true)}`,
      `version ${VERSIONS.join(" or ")}`,
      "Read it with the version of the library that wrote it, or a newer one.",
    );
  }
  if (bytes.length < HEADER_BYTES) {
    throw unfit(`${bytes.length} bytes`, `a header of ${HEADER_BYTES}`, CUT);
  }
  compare("header", view.getUint32(52, true), crc32(bytes.subarray(0, 52)));
  const { header, size } = readHeader(view);
  const payload = bytes.subarray(HEADER_BYTES);
  if (payload.length !== size) {
    throw unfit(
      `${bytes.length} bytes`,
      `${HEADER_BYTES + size}, by the header`,
      payload.length < size ? CUT : "Give the bytes of one sequence, without what follows.",
    );
  }
  compare("payload", view.getUint32(48, true), crc32(payload));
  return { header, payload };
}

const CUT = "It was cut: save or send it again.";

/** The fields of a header whose checksum is right: what does not fit was written by others. */
function readHeader(view: DataView): { header: SavedHeader; size: number } {
  const [numLayers, numKvHeads, headDimK, headDimV] = SIZES.map((_, i) =>
    view.getUint32(16 + 4 * i, true)
  );
  const isPlain = view.getUint32(8, true) === VERSIONS[0];
  const codes = [view.getUint8(12), view.getUint8(isPlain ? 12 : 13)];
  const [kDtype, vDtype] = codes.map((code) => DTYPE_CODES[code]);
  const flags = view.getUint16(14, true);
  const tokens = Number(view.getBigUint64(32, true));
  const size = Number(view.getBigUint64(40, true));
  if (kDtype === undefined || vDtype === undefined) {
    const code = codes.find((code) => code >= DTYPE_CODES.length);
    throw unfit(`dtype ${code}`, `0 to ${DTYPE_CODES.length - 1}`, "No version writes it.");
  }
  if (flags > 1 || (isPlain && (flags !== 0 || view.getUint8(13) !== 0))) {
    throw unfit(`flags ${flags}`, isPlain ? "0" : "0 or 1", "No version writes them.");
  }
  const header = checkHeader({
    kDtype,
    vDtype,
    numLayers,
    numKvHeads,
    headDimK,
    headDimV,
    tokenScales: flags === 1,
    tokens,
  });
  if (payloadBytes(header) !== size) {
    throw unfit(
      `a payload of ${size} bytes`,
      `${payloadBytes(header)}, by the sizes`,
      "No version writes it.",
    );
  }
  return { header, size };
}

/** A checked copy. */
function checkHeader(header: SavedHeader): SavedHeader {
  const { kDtype, vDtype } = header;
  for (const [name, dtype] of Object.entries({ kDtype, vDtype })) {
    if (isDType(dtype)) continue;
    throw new DTypeError(`header.${name}`, {
      got: show(dtype),
      expected: DTYPE_CODES.map((name) => `"${name}"`).join(", "),
      hint: "Give the cache's dtypes.",
    });
  }
  const [numLayers, numKvHeads, headDimK, headDimV] = SIZES.map((name) => {
    const value = checkInteger(`header.${name}`, header[name], 1);
    if (value < 2 ** 32) return value;
    throw new OptionError(`header.${name}`, {
      got: show(value),
      expected: "less than 2^32",
      hint: "Check the order of the sizes.",
    });
  });
  const tokens = checkInteger("header.tokens", header.tokens, 0);
  const tokenScales = checkBoolean("header.tokenScales", header.tokenScales);
  const sizes = { numLayers, numKvHeads, headDimK, headDimV };
  const checked = { kDtype, vDtype, ...sizes, tokenScales, tokens };
  if (Number.isSafeInteger(payloadBytes(checked))) return checked;
  throw new OptionError("header", {
    got: `a payload of ${payloadBytes(checked)} bytes`,
    expected: "less than 2^53",
    hint: "Check the order of the sizes.",
  });
}

function payloadBytes(header: SavedHeader): number {
  return savedPart(header, header.numLayers, "k")[0];
}

function countBytes(parts: readonly Uint8Array[]): number {
  if (Array.isArray(parts) && parts.every((part) => part instanceof Uint8Array)) {
    return parts.reduce((sum, { length }) => sum + length, 0);
  }
  throw new OptionError("parts", {
    got: show(parts),
    expected: "an array of Uint8Array",
    hint: "Give the bytes as the cache stores them.",
  });
}

function allocate(length: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch (cause) {
    throw new OutOfMemoryError("encodeSequence", {
      got: `no memory for ${length} bytes`,
      expected: "an array that holds the whole sequence",
      hint: "Save fewer tokens or layers at once.",
      cause,
    });
  }
}

/** Throws `OptionError` unless the checksums are the same. */
function compare(part: string, written: number, found: number): void {
  if (written === found) return;
  throw unfit(
    `a ${part} whose checksum is 0x${found.toString(16)}`,
    `0x${written.toString(16)}, as is written in it`,
    "It was changed on its way: save or send it again.",
  );
}

function hex(bytes: ArrayLike<number>): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function unfit(got: string, expected: string, hint: string): OptionError {
  return new OptionError("saved sequence", { got, expected, hint });
}
