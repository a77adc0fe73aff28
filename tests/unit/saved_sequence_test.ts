/** Saved sequences: what was written is read, and nothing else is. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { OptionError } from "@kvasir/attention";
import { crc32 } from "../../src/crc32.ts";
import { bytesPerElement, DTYPES } from "../../src/dtype.ts";
import {
  decodeSequence,
  encodeSequence,
  type SavedHeader,
  savedPart,
} from "../../src/saved_sequence.ts";
import { assertFails } from "../support/failures.ts";

const HEADER_BYTES = 56;

const SMALL: SavedHeader = {
  kDtype: "float8_e4m3fn",
  vDtype: "float8_e4m3fn",
  numLayers: 2,
  numKvHeads: 1,
  headDimK: 4,
  headDimV: 2,
  tokenScales: false,
  tokens: 3,
};

/** 1, 2, 3 and so on: 2 layers of 3 tokens of 4 + 2 bytes. */
const PAYLOAD = Uint8Array.from({ length: 36 }, (_, i) => i + 1);

const refused = (label: string, bytes: unknown, ...patterns: RegExp[]) =>
  assertFails(
    label,
    () => decodeSequence(bytes as Uint8Array),
    "OptionError",
    "saved sequence",
    ...patterns,
  );

/** A saved sequence with a field of its header changed and the checksum right again. */
function forged(change: (view: DataView) => void): Uint8Array {
  const bytes = encodeSequence(SMALL, [PAYLOAD]);
  const view = new DataView(bytes.buffer);
  change(view);
  view.setUint32(52, crc32(bytes.subarray(0, 52)), true);
  return bytes;
}

Deno.test("crc32() is that of zip, of any bytes in any pieces", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assert.equal(crc32(new Uint8Array()), 0);
  assert.equal(crc32(new Uint8Array(32)), 0x190a55ad);
  assert.equal(crc32(new Uint8Array(32).fill(0xff)), 0xff6cab0b);
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200, size: "max" }),
      fc.nat(200),
      fc.nat(20),
      (bytes, cut, offset) => {
        let expected = 0xffffffff;
        for (const byte of bytes) {
          expected ^= byte;
          for (let i = 0; i < 8; i++) expected = expected >>> 1 ^ (expected & 1 ? 0xedb88320 : 0);
        }
        expected = ~expected >>> 0;
        assert.equal(crc32(bytes), expected);
        assert.equal(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut))), expected);
        const shifted = new Uint8Array(offset + bytes.length);
        shifted.set(bytes, offset);
        assert.equal(crc32(shifted.subarray(offset)), expected);
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("a saved sequence reads back, whatever its sizes and its pieces", () => {
  const size = fc.integer({ min: 1, max: 5 });
  fc.assert(
    fc.property(
      fc.record({
        kDtype: fc.constantFrom(...DTYPES),
        vDtype: fc.constantFrom(...DTYPES),
        numLayers: size,
        numKvHeads: size,
        headDimK: size,
        headDimV: size,
        tokenScales: fc.boolean(),
        tokens: fc.nat(20),
      }),
      fc.array(fc.nat(), { maxLength: 6 }),
      fc.integer(),
      fc.nat(9),
      (header, cuts, seed, offset) => {
        const bytesOf = (part: "K" | "V") =>
          header.numLayers * header.tokens * header.numKvHeads * header[`headDim${part}`] *
          bytesPerElement(header[part === "K" ? "kDtype" : "vDtype"]);
        const scales = header.tokenScales
          ? 8 * header.numLayers * header.tokens * header.numKvHeads
          : 0;
        const payload = Uint8Array.from(
          { length: bytesOf("K") + bytesOf("V") + scales },
          (_, i) => Math.imul(i + 1, seed) >>> 13,
        );
        const ends = cuts.map((cut) => cut % (payload.length + 1)).sort((a, b) => a - b);
        const parts = [0, ...ends].map((begin, i) =>
          payload.subarray(begin, ends[i] ?? payload.length)
        );
        const bytes = encodeSequence(header, parts);
        assert.equal(bytes.length, HEADER_BYTES + payload.length);
        const moved = new Uint8Array(offset + bytes.length);
        moved.set(bytes, offset);
        const read = decodeSequence(moved.subarray(offset));
        assert.deepEqual(read.header, { ...header });
        assert.deepEqual(new Uint8Array(read.payload), payload);
        assert.equal(read.payload.buffer, moved.buffer, "no copy");
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("the format of version 1 does not change", () => {
  const bytes = encodeSequence(SMALL, [PAYLOAD]);
  const hex = Array.from(bytes.subarray(0, HEADER_BYTES), (b) => b.toString(16).padStart(2, "0"));
  assert.equal(
    hex.join("").replace(/.{16}/g, "$& ").trim(),
    "894b56415349520a 0100000003000000 0200000001000000 0400000002000000 " +
      "0300000000000000 2400000000000000 582245cc5c267288",
  );
  assert.deepEqual(bytes.subarray(HEADER_BYTES), PAYLOAD);
  const codes = DTYPES.map((dtype) => {
    const header = { ...SMALL, kDtype: dtype, vDtype: dtype, tokens: 0 };
    return [dtype, encodeSequence(header, [])[12]];
  });
  assert.deepEqual(Object.fromEntries(codes), {
    float32: 0,
    float16: 1,
    bfloat16: 2,
    float8_e4m3fn: 3,
    float8_e5m2: 4,
  });
});

Deno.test("savedPart() gives k and v of each layer, one after another", () => {
  const parts = [0, 1].flatMap((layer) => [
    savedPart(SMALL, layer, "k"),
    savedPart(SMALL, layer, "v"),
  ]);
  assert.deepEqual(parts, [[0, 12], [12, 18], [18, 30], [30, 36]]);
  const wide: SavedHeader = { ...SMALL, kDtype: "bfloat16", vDtype: "bfloat16", numKvHeads: 3 };
  assert.deepEqual(savedPart(wide, 1, "v"), [180, 216]);
  assert.deepEqual(savedPart({ ...wide, vDtype: "float8_e5m2" }, 1, "v"), [162, 180]);
});

Deno.test("savedPart() gives the scales of each layer's tokens behind its values", () => {
  const scaled = { ...SMALL, tokenScales: true };
  assert.deepEqual(savedPart(scaled, 1, "k"), [42, 54]);
  assert.deepEqual(savedPart(scaled, 1, "scales"), [60, 84]);
  assert.equal(encodeSequence(scaled, [new Uint8Array(84)])[8], 2, "version 2");
});

Deno.test("every change of one bit is found", () => {
  const bytes = encodeSequence(SMALL, [PAYLOAD]);
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    bytes[bit >> 3] ^= 1 << (bit & 7);
    assert.throws(() => decodeSequence(bytes), OptionError, `bit ${bit}`);
    bytes[bit >> 3] ^= 1 << (bit & 7);
  }
  assert.deepEqual(decodeSequence(bytes).payload, PAYLOAD);
});

Deno.test("every change of a run of bytes is found", () => {
  const original = encodeSequence(SMALL, [PAYLOAD]);
  fc.assert(
    fc.property(
      fc.nat(original.length - 1),
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      (at, change) => {
        const bytes = original.slice();
        bytes.set(change.subarray(0, bytes.length - at), at);
        if (bytes.every((byte, i) => byte === original[i])) return;
        assert.throws(() => decodeSequence(bytes), OptionError);
      },
    ),
    { numRuns: 2000 },
  );
});

Deno.test("a sequence cut at any length is refused, and so is what follows one", async () => {
  const bytes = encodeSequence(SMALL, [PAYLOAD]);
  for (let length = 0; length < bytes.length; length++) {
    const expected = length === 0 ? /no bytes/ : /It was cut/;
    await refused(`${length} bytes`, bytes.subarray(0, length), expected);
  }
  const longer = new Uint8Array(bytes.length + 1);
  longer.set(bytes);
  await refused("a byte more", longer, /got 93 bytes, expected 92/, /without what follows/);
});

Deno.test("foreign, newer and forged bytes are refused, and the error says which", async () => {
  await refused("no bytes at all", "KVASIR", /got "KVASIR", expected a Uint8Array/);
  await refused("a buffer", new ArrayBuffer(99), /ArrayBuffer/);
  await refused("text", new TextEncoder().encode("{}"), /begin with 7b 7d, expected .*89 4b 56/);
  const text = encodeSequence(SMALL, [PAYLOAD]);
  text[0] = 0xef; // as UTF-8's replacement character begins
  await refused("sent as text", text, /begin with ef 4b/, /send it as binary/);
  await refused("version 3", forged((view) => view.setUint32(8, 3, true)), /version 3.*version 1/);
  await refused(
    "scales that the payload has not",
    forged((view) => {
      view.setUint32(8, 2, true);
      view.setUint8(13, 3);
      view.setUint16(14, 1, true);
    }),
    /got a payload of 36 bytes, expected 84/,
  );
  await refused("flags", forged((view) => view.setUint16(14, 1, true)), /got flags 1, expected 0/);
  await refused("version 0", forged((view) => view.setUint32(8, 0, true)), /version 0/);
  await refused("dtype 5", forged((view) => view.setUint8(12, 5)), /got dtype 5.*0 to 4/);
  await refused(
    "tokens that the payload has no room for",
    forged((view) => view.setBigUint64(32, 4n, true)),
    /got a payload of 36 bytes, expected 48/,
  );
  await refused(
    "a payload that is longer than the bytes",
    forged((view) => {
      view.setBigUint64(32, 6n, true);
      view.setBigUint64(40, 72n, true);
    }),
    /got 92 bytes, expected 128/,
  );
  const changed = encodeSequence(SMALL, [PAYLOAD]);
  changed[60]++;
  await refused("a changed payload", changed, /got a payload whose checksum/, /was changed/);
  const unfit: [at: number, value: bigint, subject: string][] = [
    [32, 2n ** 64n - 1n, "header.tokens"],
    [32, 2n ** 53n - 1n, "header"],
    [16, 3n << 32n, "header.numLayers"],
    [24, 3n << 32n, "header.headDimK"],
  ];
  for (const [at, value, subject] of unfit) {
    const bytes = forged((view) => view.setBigUint64(at, value, true));
    await assertFails(subject, () => decodeSequence(bytes), "OptionError", subject);
  }
});

Deno.test("random bytes are refused, with and without a right beginning", () => {
  const begin = encodeSequence(SMALL, [PAYLOAD]).subarray(0, 12);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200, size: "max" }), (bytes) => {
      assert.throws(() => decodeSequence(bytes), OptionError);
      bytes.set(begin.subarray(0, bytes.length));
      assert.throws(() => decodeSequence(bytes), OptionError);
    }),
    { numRuns: 3000 },
  );
});

Deno.test("encodeSequence() refuses what does not fit", async () => {
  const encode = (change: object, parts: unknown = [PAYLOAD]) => () =>
    encodeSequence({ ...SMALL, ...change }, parts as Uint8Array[]);
  await assertFails("dtype", encode({ kDtype: "int8" }), "DTypeError", "header.kDtype", /"int8"/);
  for (const name of ["numLayers", "numKvHeads", "headDimK", "headDimV"]) {
    for (const value of [0, -1, 1.5, "2", undefined, 2 ** 32]) {
      await assertFails(name, encode({ [name]: value }), "OptionError", `header.${name}`);
    }
  }
  for (const tokens of [-1, 1.5, NaN, 2 ** 53]) {
    await assertFails("tokens", encode({ tokens }), "OptionError", "header.tokens");
  }
  await assertFails("size", encode({ tokens: 2 ** 52 }), "OptionError", "header", /2\^53/);
  await assertFails("null", () => encodeSequence(null as never, []), "OptionError", "header");
  await assertFails("parts", encode({}, null), "OptionError", "parts", /null/);
  await assertFails("parts", encode({}, [PAYLOAD, [1]]), "OptionError", "parts", /Uint8Array/);
  await assertFails("too few", encode({}, []), "OptionError", "parts", /got 0 bytes.*36/);
  const more = [PAYLOAD, new Uint8Array(1)];
  await assertFails("too many", encode({}, more), "OptionError", "parts", /got 37 bytes.*36/);
});
