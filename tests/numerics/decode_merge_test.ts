/**
 * Attention over parts of the keys, merged, is attention over all of them: whatever the parts, however
 * they are merged.
 */

import assert from "node:assert/strict";
import {
  type AttentionWithLse,
  batchDecodeWithPaddedKvCache,
  type Device,
  type DType,
  mergeState,
  mergeStateInPlace,
  mergeStates,
} from "@kvasir/attention";
import fc from "fast-check";
import { type DecodeAnswer, type DecodeSpec, drawValues, makeInputs } from "../support/decode.ts";
import { onEachBackend } from "../support/device.ts";
import { expectedOf } from "../support/gate.ts";
import { readState } from "../support/merge.ts";
import { store } from "../support/storage.ts";

const RUNS = Deno.env.get("KVASIR_PROPERTY_RUNS");
const SEED = Number(Deno.env.get("KVASIR_PROPERTY_SEED") ?? 1);
const HEADS = [4, 2] as const;
const HEAD_DIM = 16;
const ROW = HEADS[1] * HEAD_DIM;
/** One kernel serves all: lengths are no part of it. */
const SPEC = { heads: HEADS, headDim: HEAD_DIM, logitsSoftCap: 20 } as const;

/** Decodes the keys at some positions; the state is the caller's to destroy. */
async function decodePart(
  device: Device,
  spec: DecodeSpec,
  values: ReturnType<typeof drawValues>,
  positions: readonly number[],
): Promise<AttentionWithLse> {
  const pick = (x: Float32Array) => {
    const part = new Float32Array(positions.length * ROW);
    positions.forEach((from, to) => part.set(x.subarray(from * ROW, (from + 1) * ROW), to * ROW));
    return store(part, spec.kvDtype ?? "float32").bytes;
  };
  const shape = [1, positions.length, HEADS[1], HEAD_DIM];
  const dtype: DType = spec.kvDtype ?? "float32";
  using q = device.tensor(values.q, [1, HEADS[0], HEAD_DIM], "float32");
  using k = device.tensorFromBytes(pick(values.k), shape, dtype);
  using v = device.tensorFromBytes(pick(values.v), shape, dtype);
  const { logitsSoftCap } = spec;
  return await batchDecodeWithPaddedKvCache(q, k, v, { logitsSoftCap, returnLse: true });
}

function destroy({ out, lse }: AttentionWithLse) {
  out.destroy();
  lse.destroy();
}

/** Merges states by one call each way, in their order. */
const MERGES: Readonly<
  Record<string, (device: Device, states: readonly AttentionWithLse[]) => Promise<DecodeAnswer>>
> = {
  "all at once": async (device, states) => {
    const parts: DecodeAnswer[] = [];
    for (const { out, lse } of states) {
      parts.push({ out: await out.read(), lse: await lse.read() });
    }
    const all = (name: "out" | "lse") => parts.flatMap((part) => Array.from(part[name]));
    using v = device.tensor(all("out"), [1, states.length, HEADS[0], HEAD_DIM], "float32");
    using s = device.tensor(all("lse"), [1, states.length, HEADS[0]], "float32");
    return await readState(await mergeStates(v, s));
  },
  "one after the other": async (_device, [first, ...rest]) => {
    let merged = first;
    for (const { out, lse } of rest) {
      const next = await mergeState(merged.out, merged.lse, out, lse);
      if (merged !== first) destroy(merged);
      merged = next;
    }
    const answer = { out: await merged.out.read(), lse: await merged.lse.read() };
    if (merged !== first) destroy(merged);
    return answer;
  },
  "in place, from the last": async (_device, states) => {
    const { out, lse } = states[states.length - 1];
    for (const other of states.slice(0, -1).reverse()) {
      await mergeStateInPlace(out, lse, other.out, other.lse);
    }
    return { out: await out.read(), lse: await lse.read() };
  },
};

interface Partition {
  readonly kvLen: number;
  readonly kvDtype: DType;
  /** For each key, its part. */
  readonly partOf: readonly number[];
  readonly numParts: number;
  readonly seed: number;
}

const PARTITIONS: fc.Arbitrary<Partition> = fc.record({
  kvLen: fc.integer({ min: 1, max: 120 }),
  kvDtype: fc.constantFrom<DType>("float32", "float8_e4m3fn"),
  numParts: fc.integer({ min: 1, max: 6 }),
  seed: fc.integer({ min: 1, max: 1000 }),
}).chain(({ kvLen, numParts, ...rest }) =>
  fc.array(fc.integer({ min: 0, max: numParts - 1 }), { minLength: kvLen, maxLength: kvLen })
    .map((partOf) => ({ ...rest, kvLen, numParts, partOf }))
);

async function checkPartition(device: Device, partition: Partition) {
  const { kvLen, kvDtype, seed, partOf, numParts } = partition;
  const spec: DecodeSpec = { ...SPEC, kvLen, kvDtype, seed };
  const values = drawValues(spec);
  const { exact, outBounds, lseBounds } = expectedOf(makeInputs(spec, values).problem);
  for (const [how, mergeAll] of Object.entries(MERGES)) {
    const states: AttentionWithLse[] = [];
    for (let part = 0; part < numParts; part++) {
      const positions = [...partOf.keys()].filter((key) => partOf[key] === part);
      states.push(await decodePart(device, spec, values, positions));
    }
    const merged = await mergeAll(device, states);
    states.forEach(destroy);
    // Each part, and each merge, rounds once more than the whole.
    const slack = numParts * 2.5e-7;
    for (const [name, bound] of [["out", outBounds[0]], ["lse", lseBounds[0]]] as const) {
      merged[name].forEach((x, i) => {
        const off = Math.abs(x - exact[name][i]);
        const allowed = bound + slack * (1 + Math.abs(exact[name][i]));
        assert.ok(off <= allowed, `${how}: ${name} ${i}: ${x}, not ${exact[name][i]}`);
      });
    }
  }
}

onEachBackend(
  "merging the attention over any parts is that over the whole",
  async (device, name) => {
    const numRuns = RUNS ? Number(RUNS) : name === "wasm" ? 300 : 40;
    console.log(`${name}: ${numRuns} random partitions, KVASIR_PROPERTY_SEED=${SEED}`);
    const passes = fc.asyncProperty(PARTITIONS, (partition) => checkPartition(device, partition));
    await fc.assert(passes, { numRuns, seed: SEED });
  },
);

onEachBackend("parts of one key, parts without keys, and halves", async (device) => {
  const base = { kvDtype: "float32", seed: 3 } as const;
  const keys = (kvLen: number, partOf: (key: number) => number, numParts: number): Partition => ({
    ...base,
    kvLen,
    partOf: Array.from({ length: kvLen }, (_, key) => partOf(key)),
    numParts,
  });
  await checkPartition(device, keys(9, (key) => key, 9));
  await checkPartition(device, keys(9, () => 1, 3));
  await checkPartition(device, keys(64, (key) => Number(key >= 32), 2));
  await checkPartition(device, keys(64, (key) => key % 2, 2));
});
