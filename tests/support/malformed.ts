/**
 * Random calls that are wrong, and what must come of them.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Device, type DType, KvasirError } from "@kvasir/attention";
import fc from "fast-check";
import type { KvasirDevice } from "../../src/device.ts";

export const DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];

/** What no numeric option takes. */
export const noNumber: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(NaN, Infinity, -Infinity, 1e39, null, true, {}, [], "1", () => 1, 10n),
  fc.string(),
);
/** What is none of a few words. */
export const noWord: fc.Arbitrary<unknown> = fc.anything().filter((value) =>
  value !== undefined && value !== null &&
  !["NHD", "HND", "NONE", "ROPE_LLAMA", "ALIBI"].includes(value as string) &&
  !["log2", "ln", ...DTYPES].includes(value as string)
);
const badList = (good: number) =>
  fc.oneof(
    fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { maxLength: 20 })
      .filter((list) => list.length !== good),
    fc.array(fc.constantFrom(NaN, Infinity, "x", null), { minLength: good, maxLength: good }),
  );

/** Options of decode that do not fit 6 query heads, 3 KV heads, 2 requests and 5 keys. */
export const badOptions: fc.Arbitrary<Record<string, unknown>> = fc.oneof(
  fc.record({ kvLayout: noWord }),
  fc.record({ posEncodingMode: noWord }),
  fc.record({ lseBase: noWord }),
  fc.record({ outDtype: noWord }),
  fc.record({ smScale: noNumber.filter((x) => x !== null) }),
  fc.record({ qScale: fc.oneof(badList(6), fc.constantFrom(NaN, "1", {}, true)) }),
  fc.record({ kScale: fc.oneof(badList(3), fc.constantFrom(Infinity, "1", {}, true)) }),
  fc.record({ vScale: fc.oneof(badList(3), fc.constantFrom(1e39, "1", {}, true)) }),
  fc.record({ outScale: fc.constantFrom(0, -1, NaN, Infinity, 1e39, "1", {}, [1]) }),
  fc.record({ sinks: fc.oneof(badList(6), fc.constantFrom(1, "1", {}, null)) }),
  fc.record({ windowLeft: fc.oneof(fc.integer({ max: -2 }), fc.constantFrom(0.5, "1", NaN, {})) }),
  fc.record({ logitsSoftCap: fc.constantFrom(-1, -1e-9, NaN, Infinity, "30", {}) }),
  fc.record({ ropeScale: fc.constantFrom(0, -1, NaN, "1", {}) }),
  fc.record({ ropeTheta: fc.constantFrom(0, -1e4, Infinity, "1", {}) }),
  fc.record({ returnLse: fc.constantFrom(0, 1, "true", {}) }),
  fc.record({
    seqLens: fc.oneof(
      fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 8 }).filter((list) =>
        list.length !== 2
      ),
      fc.tuple(fc.constantFrom(-1, 6, 1.5, NaN, "3", null), fc.constantFrom(0, 5)),
      fc.constantFrom(5, "55", {}),
    ),
  }),
  fc.string().filter((name) =>
    !/^(kvL|pos|rope|smS|qS|kS|vS|win|log|sin|out|ret|lse|seq|__proto)/.test(name)
  )
    .map((name) => ({ [name]: 1 })),
);

/** Fails unless `work` throws an error of the library that names an argument. */
export function assertTyped(label: string, work: () => unknown): void {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof KvasirError, `${label}: ${error}`);
    assert.match(
      error.message,
      /^(q|k|v|s|vA|sA|vB|sB|out|lse|run|options|lastPageLen)[^]*: got /,
      label,
    );
    return;
  }
  assert.fail(`${label}: no error`);
}

/**
 * Counts what a device is asked to do while `work` runs. Planned calls go past the backend's methods to
 * the GPU: so buffers, bind groups, writes and submissions count too.
 */
export function countWork(device: Device, work: () => Promise<void>): Promise<number> {
  return countCalls(device, work, {
    engine: ["allocate", "attend", "merge", "append", "convert", "copy", "read", "write"],
    device: ["createBuffer", "createBindGroup", "createCommandEncoder"],
    queue: ["submit", "writeBuffer"],
  });
}

/** Counts what computes alone: results may be allocated before a call fails, if they are freed again. */
export function countDispatches(device: Device, work: () => Promise<void>): Promise<number> {
  return countCalls(device, work, {
    engine: ["attend", "merge", "append", "convert"],
    device: [],
    queue: ["submit"],
  });
}

async function countCalls(
  device: Device,
  work: () => Promise<void>,
  names: Readonly<Record<"engine" | "device" | "queue", readonly string[]>>,
): Promise<number> {
  const engine = (device as KvasirDevice).engine as unknown as Record<string, unknown>;
  let count = 0;
  const restore: (() => void)[] = [];
  const spy = (target: object, name: string) => {
    const methods = target as Record<string, unknown>;
    const own = Object.getOwnPropertyDescriptor(target, name);
    const original = methods[name] as (...args: unknown[]) => unknown;
    const spied = function (this: unknown, ...args: unknown[]) {
      count++;
      return original.apply(this, args);
    };
    Object.defineProperty(target, name, { value: spied, configurable: true, writable: true });
    restore.push(() => {
      if (own) Object.defineProperty(target, name, own);
      else delete methods[name];
    });
  };
  for (const name of names.engine) spy(engine, name);
  const gpu = engine.device as GPUDevice | undefined;
  if (gpu) {
    const [ofDevice, ofQueue] = [Object.getPrototypeOf(gpu), Object.getPrototypeOf(gpu.queue)];
    for (const name of names.device) spy(ofDevice, name);
    for (const name of names.queue) spy(ofQueue, name);
  }
  try {
    await work();
  } finally {
    for (const undo of restore) undo();
  }
  return count;
}
