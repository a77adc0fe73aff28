/** Planning of decode, without a GPU: kernels, rows of results, windows, limits. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import type { AttentionProblem } from "../../src/attention_problem.ts";
import { paddedDecode } from "../../src/decode_problem.ts";
import type { Capabilities, DispatchLimits } from "../../src/webgpu/capabilities.ts";
import { type DecodePlan, planDecode } from "../../src/webgpu/decode_plan.ts";
import { paramWords, tableWords } from "../../src/webgpu/decode_tables.ts";
import { foldGrid } from "../../src/webgpu/grid.ts";
import { linkShader } from "../../src/webgpu/link.ts";
import { capabilities, FP8 } from "../support/capabilities.ts";

const SUBGROUP_SIZES = [null, 4, 8, 32];
const KV_DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];

/** What a test varies of a problem. */
interface Sizes {
  readonly batch?: number;
  readonly keys?: number;
  readonly heads?: readonly [number, number];
  readonly headDim?: number;
  readonly kvDtype?: DType;
  readonly kvLayout?: "NHD" | "HND";
  readonly seqLens?: readonly number[];
}

function problemOf({
  batch = 2,
  keys = 5,
  heads = [6, 2],
  headDim = 128,
  kvDtype = "float16",
  kvLayout = "NHD",
  seqLens,
}: Sizes): AttentionProblem {
  const inner = kvLayout === "NHD" ? [keys, heads[1]] : [heads[1], keys];
  const k = { shape: [batch, ...inner, headDim], dtype: kvDtype };
  const q = { shape: [batch, heads[0], headDim], dtype: "float16" } as const;
  return paddedDecode(q, k, k, seqLens ? { kvLayout, seqLens } : { kvLayout }).problem;
}

function plan(sizes: Sizes, device: Capabilities = capabilities(32)): DecodePlan {
  return planDecode(problemOf(sizes), device);
}

/** The options that make other kernels. */
const VARIANTS: readonly Partial<AttentionProblem>[] = [
  {},
  { rope: { scale: 1, theta: 1e4 } },
  { alibiSlopes: new Float32Array(6) },
  { logitsSoftCap: 30 },
  { sinks: new Float32Array(6) },
  { alibiSlopes: new Float32Array(6), logitsSoftCap: 30, sinks: new Float32Array(6) },
  { outDtype: "float8_e4m3fn", qDtype: "float8_e5m2" },
  { pageTable: Uint32Array.of(1, 0), pageSize: 5 },
];

Deno.test("planDecode() gives one name to one kernel only", () => {
  const byName = new Map<string, string>();
  for (const headDim of [8, 40, 64, 128, 512]) {
    for (const kvDtype of KV_DTYPES) {
      for (const size of SUBGROUP_SIZES) {
        for (const variant of VARIANTS) {
          const problem = { ...problemOf({ headDim, kvDtype }), ...variant };
          const { name, ...sources } = planDecode(problem, capabilities(size)).kernel;
          const text = JSON.stringify(sources);
          assert.equal(byName.get(name) ?? text, text, name);
          byName.set(name, text);
        }
      }
    }
  }
  assert.ok(byName.size > 500, `${byName.size} kernels`);
});

Deno.test("planDecode() plans the same whatever it planned before, and keeps a kernel", () => {
  const device = capabilities(32);
  const sizes: readonly Sizes[] = [
    {},
    { batch: 3, keys: 7 },
    { batch: 2, keys: 20000 }, // split
    { batch: 2, keys: 20000, seqLens: [20, 30] },
    { batch: 4, keys: 50000, heads: [8, 2] },
    { batch: 4, keys: 50000, heads: [8, 2], seqLens: [9, 9, 9, 9] }, // of other tuning
    { headDim: 64 },
    { heads: [6, 6] },
    { kvDtype: "float8_e4m3fn" },
    { kvLayout: "HND" },
  ];
  // Plans of the same options have the same arrays.
  const scales = new Float32Array(8).fill(0.1);
  const problems = sizes.flatMap((size) =>
    VARIANTS.filter(({ pageTable }) => !pageTable || !size.batch).map((variant) => ({
      ...problemOf(size),
      ...variant,
      logitScales: scales,
      outScales: scales,
    }))
  );
  const planned = problems.map((problem) => ({ problem, plan: planDecode(problem, device) }));
  for (const before of planned) {
    for (const { problem, plan } of planned) {
      const { kernel, shape, split, dispatches } = planDecode(problem, device, {}, before);
      assert.deepEqual({ kernel, shape }, { kernel: plan.kernel, shape: plan.shape });
      assert.equal(split?.states, plan.split?.states);
      assert.equal(dispatches[0].stretches.length, plan.dispatches[0].stretches.length);
    }
  }
  const problem = problemOf({ batch: 2, keys: 9, seqLens: [5, 9] });
  const before = { problem, plan: planDecode(problem, device) };
  const longer = { ...problem, requests: problem.requests.map((word, i) => i === 2 ? 6 : word) };
  const kept = planDecode(longer, device, undefined, before);
  assert.equal(kept.kernel, before.plan.kernel);
  assert.deepEqual(kept.dispatches[0].stretches.map(({ end }) => end), [9, 6]);
});

Deno.test("every variant of the kernel links, with nothing left to unroll", async () => {
  for (const headDim of [8, 40, 128]) {
    for (const kvDtype of KV_DTYPES) {
      for (const variant of VARIANTS) {
        const size = headDim === 40 ? null : 8;
        const problem = { ...problemOf({ headDim, kvDtype }), ...variant };
        const { kernel } = planDecode(problem, capabilities(size));
        for (const enable_subgroups of [true, false]) {
          const conditions = { ...kernel.conditions, enable_subgroups };
          const wgsl = await linkShader({ ...kernel, conditions });
          assert.doesNotMatch(wgsl, /@unroll|@if|@else|\bimport\b/);
          assert.equal(/^\s*enable subgroups;/m.test(wgsl), enable_subgroups && size !== null);
        }
      }
    }
  }
});

Deno.test("planDecode() writes whole requests to their rows, and parts to states that merge", () => {
  const whole = plan({ batch: 3, keys: 40 });
  assert.equal(whole.split, null);
  assert.deepEqual(whole.dispatches[0].stretches.map(({ outRow, request }) => outRow - request), [
    0,
    0,
    0,
  ]);
  const split = plan({ batch: 3, keys: 5000, seqLens: [5000, 0, 70] });
  assert.ok(split.split);
  const rows = split.dispatches.flatMap(({ stretches }) => stretches.map((s) => s.outRow));
  assert.deepEqual(rows.toSorted((a, b) => a - b), rows.map((_, i) => i), "each state once");
  assert.equal(split.split.states, rows.length);
  for (const { request, outRow } of split.dispatches[0].stretches) {
    const [first, count] = split.split.merge.rows.subarray(request * 4);
    assert.ok(outRow >= first && outRow < first + count, "a request's states follow each other");
  }
  assert.match(split.kernel.name, /out-float32/);
});

Deno.test("planDecode() reads only the keys of a sliding window", () => {
  const problem = { ...problemOf({ batch: 2, keys: 100, seqLens: [100, 7] }), windowLeft: 9 };
  const [dispatch] = planDecode(problem, capabilities(32)).dispatches;
  const ranges = dispatch.stretches.map(({ request, first, end }) => [request, first, end]);
  assert.deepEqual(ranges, [[0, 90, 100], [1, 0, 7]]);
});

Deno.test("planDecode() covers a cache larger than a binding with windows", () => {
  for (const kvLayout of ["NHD", "HND"] as const) {
    for (const bindingBytes of [14_000, 20_000, 35_000]) {
      const limits: Partial<DispatchLimits> = { maxStorageBufferBindingSize: bindingBytes };
      const sizes: Sizes = { batch: 3, keys: 50, heads: [4, 2], headDim: 64, kvLayout };
      const { dispatches, split } = plan(sizes, capabilities(32, limits));
      const label = `${kvLayout}, ${bindingBytes}`;
      assert.ok(dispatches.length > 1, label);
      const seen = new Map<string, number>();
      for (const { stretches, heads, windows } of dispatches) {
        assert.ok(windows && windows.k.size <= bindingBytes, label);
        for (const { request, first, end } of stretches) {
          for (let head = heads[0]; head < heads[1]; head++) {
            for (let key = first; key < end; key++) {
              const place = `${request} ${head} ${key}`;
              seen.set(place, (seen.get(place) ?? 0) + 1);
            }
          }
        }
      }
      assert.equal(seen.size, 3 * 2 * 50, label);
      assert.ok([...seen.values()].every((times) => times === 1), label);
      if (split) assert.ok(split.states >= 3, label);
    }
  }
});

Deno.test("tableWords() and paramWords() keep offsets within 32 bits", () => {
  // 32 GiB of pieces of 8 bytes is what 32 bits address; buffers are smaller everywhere.
  const problem = problemOf({ batch: 2, keys: 2 ** 20, heads: [8, 8], headDim: 128 });
  const plan = planDecode(problem, capabilities(32, { maxStorageBufferBindingSize: 2 ** 31 - 4 }));
  const last = plan.dispatches.at(-1)!;
  const params = paramWords(problem, plan, last, { writeLse: false, ropeCoarse: 0 });
  const [kPage, kToken, kHead, kBase] = params.subarray(12);
  const { request, end } = last.stretches[0];
  const row = request * kPage + (end - 1) * kToken + 7 * kHead - kBase;
  assert.ok(Number.isInteger(kBase) && row >= 0 && row < 2 ** 32);
  const bytes = row * plan.shape.pieceElements * 2;
  assert.ok(bytes < (last.windows?.k.size ?? 2 ** 32));
  assert.equal(tableWords(problem, last.stretches).length, last.stretches.length * 8 + 8 * 4);
});

Deno.test("planDecode() refuses FP8 where no way to decode it is exact", () => {
  const none = { module: null, unmarked: null, reason: "3 codes wrong" };
  const broken = { ...capabilities(8), fp8: { ...FP8, float8_e4m3fn: none } };
  assert.throws(() => plan({ kvDtype: "float8_e4m3fn" }, broken), /3 codes wrong/);
});

Deno.test("planDecode() refuses q and results beyond a binding, and odd head dims", () => {
  const small = capabilities(8, { maxStorageBufferBindingSize: 1000 });
  assert.throws(() => plan({ batch: 1 }, small), /LimitError|maxStorageBufferBindingSize/);
  assert.throws(() => plan({ headDim: 12 }), /multiple of 8/);
});

Deno.test("foldGrid() covers the work within the dimensions' limit", () => {
  const limits = { ...capabilities(null).limits, maxComputeWorkgroupsPerDimension: 10 };
  for (const count of [0, 1, 9, 10, 11, 19, 20, 21, 57, 99, 100]) {
    const [x, y] = foldGrid(count, limits);
    assert.ok(x <= 10 && y <= 10 && x * y >= count, `${count}: ${x} x ${y}`);
    assert.ok(x * y < count + 10, `${count}: ${x} x ${y}`);
  }
  assert.throws(() => foldGrid(101, limits), /at most 100/);
});
