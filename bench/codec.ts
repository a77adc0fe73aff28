/**
 * The FP8 codec beside a plain JavaScript encoder and beside copying, in one run.
 *
 * @module
 */

import { decodeFp8, encodeFp8 } from "@kvasir/attention";
import { timeTogether } from "./timing.ts";

/** Values of the measurement: 64 MiB of float32. */
const VALUES = 1 << 24;
/** The encoders in JavaScript are timed on fewer, since they are slow. */
const PLAIN_VALUES = 1 << 20;

/**
 * Prints the codec's speed and its ratios. A new array costs more than the work: its pages are
 * touched for the first time. So each is compared with a copy of its own kind.
 */
export async function benchCodec(): Promise<void> {
  const values = Float32Array.from({ length: VALUES }, () => 6 * (Math.random() - 0.5));
  const few = values.subarray(0, PLAIN_VALUES);
  const codes = encodeFp8(values, "float8_e4m3fn");
  for (const encode of [encodePlainly, encodeBits]) {
    if (encode(few).some((code, i) => code !== codes[i])) {
      throw new Error(`${encode.name} and the codec differ: one is wrong`);
    }
  }
  const values2 = new Float32Array(VALUES);
  const codes2 = new Uint8Array(VALUES);
  const t = await timeTogether({
    "copy": () => values2.set(values),
    "copy, new array": () => values.slice(),
    "plain JavaScript": () => encodePlainly(few),
    "JavaScript on bits": () => encodeBits(few),
    "encode e4m3": () => encodeFp8(values, "float8_e4m3fn", { out: codes2 }),
    "encode e5m2": () => encodeFp8(values, "float8_e5m2", { out: codes2 }),
    "encode e4m3, new array": () => encodeFp8(values, "float8_e4m3fn"),
    "decode e4m3": () => decodeFp8(codes, "float8_e4m3fn", { out: values2 }),
    "decode e5m2": () => decodeFp8(codes, "float8_e5m2", { out: values2 }),
    "decode e4m3, new array": () => decodeFp8(codes, "float8_e4m3fn"),
  }, 15);
  console.log(`FP8 codec, ${VALUES} values (float32: 64 MiB), one thread`);
  for (const [name, { median }] of Object.entries(t)) {
    const ms = name.includes("JavaScript") ? median * VALUES / PLAIN_VALUES : median;
    const copy = t[name.endsWith("new array") ? "copy, new array" : "copy"].median;
    const plain = t["plain JavaScript"].median * VALUES / PLAIN_VALUES;
    const tuned = t["JavaScript on bits"].median * VALUES / PLAIN_VALUES;
    const ratios = [`${(copy / ms).toFixed(2)} x the speed of its copy`];
    if (name.startsWith("encode")) {
      ratios.push(`${(plain / ms).toFixed(1)} x plain, ${(tuned / ms).toFixed(1)} x on bits`);
    }
    console.log(
      `  ${name.padEnd(24)} ${ms.toFixed(1).padStart(7)} ms  ` +
        `${(VALUES / ms / 1e6).toFixed(2).padStart(5)} G values/s  ${ratios.join(", ")}`,
    );
  }
}

/** A plain encoder of e4m3fn, by the definition of the format: saturating, to nearest even. */
function encodePlainly(values: Float32Array): Uint8Array {
  const codes = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]);
    let code = 0x7f;
    if (magnitude >= 448) code = 0x7e;
    else if (!Number.isNaN(magnitude)) {
      const exponent = Math.max(-6, Math.floor(Math.log2(magnitude)));
      const units = magnitude / 2 ** (exponent - 3);
      const floor = Math.floor(units);
      const rest = units - floor;
      const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
      // A mantissa of 16 carries into the exponent by itself.
      code = (exponent + 6) * 8 + rounded;
    }
    codes[i] = code | (values[i] < 0 ? 0x80 : 0);
  }
  return codes;
}

/** The same on the bits of the float, which is as fast as JavaScript gets. */
function encodeBits(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const codes = new Uint8Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const magnitude = bits[i] & 0x7fffffff;
    let code;
    if (magnitude > 0x7f800000) {
      codes[i] = 0x7f;
      continue;
    }
    if (magnitude >= 0x43e00000) code = 0x7e; // 448 and more
    else if (magnitude >= 0x3c800000) { // 2^-6, the least normal value, and more
      code = (magnitude - (120 << 23) + 0x7ffff + ((magnitude >> 20) & 1)) >> 20;
    } else {
      const units = Math.abs(values[i]) * 512;
      const floor = Math.floor(units);
      const rest = units - floor;
      code = floor + (rest > 0.5 || (rest === 0.5 && (floor & 1) === 1) ? 1 : 0);
    }
    codes[i] = code | (bits[i] >>> 24 & 0x80);
  }
  return codes;
}
