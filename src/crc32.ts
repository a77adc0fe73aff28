/**
 * CRC-32, the checksum of zip, gzip and PNG (polynomial 0x04C11DB7, reflected): finds every change of
 * up to 32 neighbouring bits, and of the others all but one in 2^32.
 *
 * @module
 */

/** The polynomial, reflected. */
const POLYNOMIAL = 0xedb88320;

/** Bytes of a step: each has a table of its own, so that their look-ups do not wait for each other. */
const STEP = 16;

/** Entry [i * 256 + b]: what byte b does to the checksum when i more bytes of its step follow. */
let tables: Int32Array<ArrayBuffer> | null = null;

function makeTables(): Int32Array<ArrayBuffer> {
  // Signed, since V8 keeps int32 unboxed.
  const made = new Int32Array(STEP * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
    made[byte] = crc;
  }
  for (let i = 256; i < made.length; i++) {
    const before = made[i - 256];
    made[i] = (before >>> 8) ^ made[before & 0xff];
  }
  return made;
}

/**
 * The CRC-32 of bytes.
 *
 * @param bytes What to check.
 * @param before The CRC-32 of what comes before them, for bytes in pieces.
 * @returns An integer from 0 to 2^32 - 1.
 */
export function crc32(bytes: Uint8Array, before: number = 0): number {
  const table = tables ??= makeTables();
  // DataView: little-endian everywhere, and at any offset.
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length;
  let crc = ~before;
  let at = 0;
  for (; at + STEP <= length; at += STEP) {
    const a = crc ^ view.getInt32(at, true);
    const b = view.getInt32(at + 4, true);
    const c = view.getInt32(at + 8, true);
    const d = view.getInt32(at + 12, true);
    crc = table[0xf00 + (a & 0xff)] ^ table[0xe00 + (a >>> 8 & 0xff)] ^
      table[0xd00 + (a >>> 16 & 0xff)] ^ table[0xc00 + (a >>> 24)] ^
      table[0xb00 + (b & 0xff)] ^ table[0xa00 + (b >>> 8 & 0xff)] ^
      table[0x900 + (b >>> 16 & 0xff)] ^ table[0x800 + (b >>> 24)] ^
      table[0x700 + (c & 0xff)] ^ table[0x600 + (c >>> 8 & 0xff)] ^
      table[0x500 + (c >>> 16 & 0xff)] ^ table[0x400 + (c >>> 24)] ^
      table[0x300 + (d & 0xff)] ^ table[0x200 + (d >>> 8 & 0xff)] ^
      table[0x100 + (d >>> 16 & 0xff)] ^ table[d >>> 24];
  }
  for (; at < length; at++) crc = (crc >>> 8) ^ table[(crc ^ bytes[at]) & 0xff];
  return ~crc >>> 0;
}
