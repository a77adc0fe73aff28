/**
 * The FP8 codec beside a plain JavaScript encoder and beside copying, in one run.
 *
 * @module
 */

import { decodeFp8, encodeFp8 } from "@kvasir/attention";
import type { BenchLine } from "./results.ts";
import { timeTogether } from "./timing.ts";

/** Values of the measurement: 64 MiB of float32. */
const VALUES = 1 << 24;
/** The encoders in JavaScript are timed on fewer, since they are slow. */
const PLAIN_VALUES = 1 << 20;

/** One conversion or copy. */
interface Work {
  readonly library: string;
  readonly dtype: string;
  readonly kernel: string;
  /** Bytes that are read and written for each value. */
  readonly bytesPerValue: number;
  readonly values: number;
  readonly run: () => unknown;
}

/**
 * Prints the codec's speed and its ratios. A new array costs more than the work: its pages are
 * touched for the first time. So each is compared with a copy of its own kind.
 */
export async function benchCodec({ quick }: { quick: boolean }): Promise<BenchLine[]> {
  const works = prepare();
  const times = await timeTogether(
    Object.fromEntries(works.map(({ run }, i) => [i, run])),
    quick ? 7 : 15,
  );
  const lines = works.map((work, i): BenchLine => ({
    family: "codec",
    library: work.library,
    shape: null,
    dtype: work.dtype,
    kernel: work.kernel,
    time: times[i],
    bytes: work.bytesPerValue * work.values,
    flops: 0,
  }));
  console.log(`FP8 codec, ${VALUES} values (float32: 64 MiB), one thread`);
  /** Milliseconds of all values. */
  const msOf = (kernel: string, dtype: string) => {
    const i = works.findIndex((work) => work.kernel === kernel && work.dtype === dtype);
    return times[i].median / 1000 * VALUES / works[i].values;
  };
  for (const { kernel, dtype } of works) {
    const ms = msOf(kernel, dtype);
    const copy = msOf(kernel.endsWith("new array") ? "copy, new array" : "copy", "float32");
    const ratios = [`${(copy / ms).toFixed(2)} x the speed of its copy`];
    if (kernel.startsWith("encode") && !kernel.includes("JavaScript")) {
      const plain = msOf("encode, plain JavaScript", E4M3);
      const tuned = msOf("encode, JavaScript on bits", E4M3);
      ratios.push(`${(plain / ms).toFixed(1)} x plain, ${(tuned / ms).toFixed(1)} x on bits`);
    }
    const name = `${kernel} (${dtype})`;
    console.log(
      `  ${name.padEnd(42)} ${ms.toFixed(1).padStart(7)} ms  ` +
        `${(VALUES / ms / 1e6).toFixed(2).padStart(5)} G values/s  ${ratios.join(", ")}`,
    );
  }
  return lines;
}

const E4M3 = "float8_e4m3fn";

function prepare(): Work[] {
  const values = Float32Array.from({ length: VALUES }, () => 6 * (Math.random() - 0.5));
  const few = values.subarray(0, PLAIN_VALUES);
  const codes = encodeFp8(values, E4M3);
  for (const encode of [encodePlainly, encodeBits]) {
    if (encode(few).some((code, i) => code !== codes[i])) {
      throw new Error(`${encode.name} and the codec differ: one is wrong`);
    }
  }
  const values2 = new Float32Array(VALUES);
  const codes2 = new Uint8Array(VALUES);
  const javascript = { library: "JavaScript", bytesPerValue: 5, values: PLAIN_VALUES };
  const copying = { library: "JavaScript", bytesPerValue: 8, values: VALUES, dtype: "float32" };
  const ours = { library: "kvasir", bytesPerValue: 5, values: VALUES };
  const conversions = ([E4M3, "float8_e5m2"] as const).flatMap((dtype): Work[] => [
    {
      ...ours,
      dtype,
      kernel: "encode",
      run: () => encodeFp8(values, dtype, { out: codes2 }),
    },
    { ...ours, dtype, kernel: "decode", run: () => decodeFp8(codes, dtype, { out: values2 }) },
  ]);
  return [
    { ...copying, kernel: "copy", run: () => values2.set(values) },
    { ...copying, kernel: "copy, new array", run: () => values.slice() },
    {
      ...javascript,
      dtype: E4M3,
      kernel: "encode, plain JavaScript",
      run: () => encodePlainly(few),
    },
    {
      ...javascript,
      dtype: E4M3,
      kernel: "encode, JavaScript on bits",
      run: () => encodeBits(few),
    },
    ...conversions,
    { ...ours, dtype: E4M3, kernel: "encode, new array", run: () => encodeFp8(values, E4M3) },
    { ...ours, dtype: E4M3, kernel: "decode, new array", run: () => decodeFp8(codes, E4M3) },
  ];
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
