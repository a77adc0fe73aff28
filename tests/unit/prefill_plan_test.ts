/** Plans of prefill, without a GPU: memory, dispatches, states, limits. */

import assert from "node:assert/strict";
import { DTYPES } from "../../src/dtype.ts";
import { LimitError } from "../../src/errors.ts";
import { singlePrefill } from "../../src/prefill_problem.ts";
import type { PrefillOptions } from "../../src/options.ts";
import { linkShader } from "../../src/webgpu/link.ts";
import { planPrefill } from "../../src/webgpu/prefill_plan.ts";
import { tableWords } from "../../src/webgpu/prefill_tables.ts";
import { capabilities } from "../support/capabilities.ts";
import { workgroupBytes } from "../support/workgroup_memory.ts";

const H200 = capabilities(32, {
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupStorageSize: 49_152,
  maxStorageBufferBindingSize: 2 ** 31 - 4,
});
const PORTABLE = capabilities(null);

function problemOf(
  [queries, keys]: readonly [number, number],
  [hq, hk, d, dv = d]: readonly number[],
  options: PrefillOptions = { causal: true },
  [qDtype, kvDtype] = ["float16", "float16"] as (typeof DTYPES)[number][],
) {
  return singlePrefill(
    { shape: [queries, hq, d], dtype: qDtype },
    { shape: [keys, hk, d], dtype: kvDtype },
    { shape: [keys, hk, dv], dtype: kvDtype },
    options,
  ).problem;
}

// A compiler's front reads it in the caller's thread: indices computed in each statement made it 790 kB
// once, of which naga took 2.9 s.
Deno.test("planPrefill(): kernels have a text of bounded length", async () => {
  for (const queries of [4, 8, 16, 1024]) {
    for (const dims of [[64, 64], [128, 128], [192, 128], [256, 256]]) {
      for (
        const options of [{ causal: true }, { posEncodingMode: "ALIBI", logitsSoftCap: 30 }, {
          posEncodingMode: "ROPE_LLAMA",
        }] as const
      ) {
        const { kernel } = planPrefill(problemOf([queries, 2048], [32, 8, ...dims], options), H200);
        const conditions = { ...kernel.conditions, enable_subgroups: true };
        const { length } = await linkShader({ ...kernel, conditions });
        assert.ok(length < 400_000, `${kernel.name}: ${length}`);
      }
    }
  }
});

Deno.test("planPrefill(): tiles fit the device's workgroup memory", () => {
  for (const device of [H200, PORTABLE]) {
    const memory = device.limits.maxComputeWorkgroupStorageSize;
    for (
      const [d, dv] of [[8, 8], [40, 40], [64, 64], [80, 80], [128, 128], [192, 128], [256, 256], [
        512,
        512,
      ]]
    ) {
      for (const queries of [1, 5, 16, 100]) {
        for (const kvDtype of DTYPES) {
          for (const posEncodingMode of ["NONE", "ROPE_LLAMA"] as const) {
            const problem = problemOf([queries, 300], [4, 2, d, dv], { posEncodingMode }, [
              "float32",
              kvDtype,
            ]);
            const { shape } = planPrefill(problem, device);
            const { constants: c } = shape;
            assert.ok(shape.memory <= memory);
            assert.ok(c.V_QUADS <= c.KEY_LANES * c.VALUE_QUADS);
            assert.equal(c.STAGES * c.STAGE_QUADS * 4, c.TILE_KEYS);
            // Blocks of weights and stages of keys divide each other.
            assert.equal(c.STAGE_QUADS * 4 * c.BLOCK_STAGES, c.KEY_LANES * c.RUN * c.STAGE_BLOCKS);
            assert.equal(c.KEY_LANES % c.BLOCK_STAGES, 0);
            assert.ok(c.ROW_TILES >= Math.max(c.CHUNK_QUADS, c.STAGE_QUADS));
            assert.ok(c.COLUMN_TILES >= Math.max(c.CHUNK_QUADS / c.PACKED, c.STAGE_QUADS));
            assert.ok(c.PACKED * c.KEY_QUADS <= c.COLUMN_QUADS);
            assert.ok(c.Q_LOADS * c.WORKGROUP >= c.TILE_ROWS * c.CHUNK_QUADS / 2);
            assert.equal(d % shape.pieceElements, 0);
            assert.equal(dv % shape.pieceElements, 0);
          }
        }
      }
    }
  }
});

Deno.test("planPrefill(): a long prompt is cut into dispatches, none of them long", () => {
  const plan = planPrefill(problemOf([131_072, 131_072], [32, 8, 128]), H200);
  assert.ok(plan.dispatches.length > 10);
  const works = plan.dispatches.flatMap((dispatch) => dispatch.works);
  assert.equal(new Set(works.map(({ firstRow }) => firstRow)).size, 131_072 * 4 / 128);
  for (const [i, { works, numWork }] of plan.dispatches.entries()) {
    const pairs = works.reduce((sum, { first, end }) => sum + end - first, 0) * 128 * 8;
    assert.equal(numWork, works.length * 8);
    assert.ok(2 * pairs * 256 <= 1.6e12, "1.6e12 operations take 45 ms on an H200");
    if (2 * pairs * 256 > 4e11) {
      assert.ok(numWork < 132 + 8, "long only where fewer would leave a part of the device idle");
    } else if (i > 0) {
      assert.ok(numWork >= 132);
    }
  }
  const lengths = plan.dispatches.map(({ works: [{ first, end }] }) => end - first);
  assert.deepEqual(
    lengths,
    lengths.toSorted((a, b) => a - b),
    "a cold device begins with short ones",
  );
});

Deno.test("planPrefill(): states of split keys have a place for each query and chunk it sees", () => {
  const plan = planPrefill(problemOf([16, 32_768], [32, 8, 128]), H200);
  assert.ok(plan.split);
  const { requests: [{ first, chunks }], states, merge } = plan.split;
  assert.equal(first, 0);
  assert.equal(states, 16 * chunks);
  for (let query = 0; query < 16; query++) {
    const [row, count] = merge.rows.subarray(query * 4);
    assert.equal(row, query * chunks);
    assert.equal(count, chunks);
  }
  const words = tableWords(problemOf([16, 32_768], [32, 8, 128]), plan, plan.dispatches[0]);
  assert.equal(words.length, 12 * plan.dispatches[0].works.length + 4 * 32);
});

// A plan that counts less than its kernel declares would pass, and fail when the GPU compiles it.
Deno.test("planPrefill(): the memory that a plan counts is what its kernel declares", async () => {
  for (const device of [H200, PORTABLE]) {
    for (const dims of [[40, 40], [128, 128], [192, 128], [512, 512]]) {
      for (const queries of [1, 16, 100]) {
        const { shape, kernel } = planPrefill(problemOf([queries, 300], [8, 2, ...dims]), device);
        assert.equal(
          workgroupBytes(await linkShader(kernel), kernel.constants),
          shape.memory,
          kernel.name,
        );
      }
    }
  }
});

Deno.test("planPrefill(): what the device cannot hold is said before anything runs", () => {
  const limits = { maxStorageBufferBindingSize: 2 ** 20, maxComputeWorkgroupStorageSize: 16_384 };
  const small = capabilities(null, limits);
  const is = (subject: string) => (error: unknown) =>
    error instanceof LimitError && error.message.startsWith(subject);
  assert.throws(() => planPrefill(problemOf([4096, 64], [4, 2, 64]), small), is("q"));
  assert.throws(() => planPrefill(problemOf([64, 8192], [4, 2, 64]), small), is("k"));
  assert.throws(() => planPrefill(problemOf([64, 64], [4, 2, 12]), small), is("q"));
});
