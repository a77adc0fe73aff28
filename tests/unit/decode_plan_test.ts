/** Planning of the decode kernel, without a GPU: sizes that fit, grids that cover, limits. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import { paddedDecode } from "../../src/decode_problem.ts";
import type { Capabilities } from "../../src/webgpu/capabilities.ts";
import { type DecodePlan, foldGrid, planDecode } from "../../src/webgpu/decode_plan.ts";
import { linkShader } from "../../src/webgpu/link.ts";

const FP8 = {
  float8_e4m3fn: { module: "formats/e4m3_halves", reason: "exact" },
  float8_e5m2: { module: "formats/e5m2_halves", reason: "exact" },
};

/** A device with subgroups of a size, or without. */
function capabilities(subgroupSize: number | null): Capabilities {
  return {
    compiler: "naga",
    subgroups: subgroupSize === null ? null : { min: subgroupSize, max: subgroupSize },
    enableSubgroups: false,
    subgroupsReason: "as the test says",
    fp8: FP8,
    limits: {
      maxComputeInvocationsPerWorkgroup: 256,
      maxComputeWorkgroupStorageSize: 16384,
      maxComputeWorkgroupsPerDimension: 65535,
    },
  };
}

const SUBGROUP_SIZES = [null, 4, 8, 16, 32, 64, 128];
const KV_DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];

function plan(
  headDim: number,
  heads: readonly [number, number],
  kvDtype: DType,
  subgroupSize: number | null,
  batch = 2,
): DecodePlan {
  const k = { shape: [batch, 5, heads[1], headDim], dtype: kvDtype };
  const q = { shape: [batch, heads[0], headDim], dtype: "float16" } as const;
  return planDecode(paddedDecode(q, k, k, {}).problem, capabilities(subgroupSize));
}

/** Plans of every head dim, dtype and subgroup size, over a few groups. */
function* plans(): Generator<[label: string, plan: DecodePlan, headDim: number, group: number]> {
  for (let headDim = 8; headDim <= 512; headDim += 8) {
    for (const kvDtype of KV_DTYPES) {
      for (const size of SUBGROUP_SIZES) {
        for (const group of [1, 3, 7, 8, 9, 17, 64]) {
          const label = `D ${headDim}, ${kvDtype}, group ${group}, subgroups of ${size}`;
          yield [label, plan(headDim, [2 * group, 2], kvDtype, size), headDim, group];
        }
      }
    }
  }
}

Deno.test("planDecode() covers every element of a row, and every head of a group, once", () => {
  const bytes = { f32: 4, f16: 2, bf16: 2, e4m3_halves: 1, e5m2_halves: 1 };
  for (const [label, { kernel, params }, headDim, group] of plans()) {
    const c = kernel.constants;
    const format = kernel.roles.kv_format.replace("formats/", "") as keyof typeof bytes;
    const pieceElements = headDim / c.PIECES;
    assert.equal(pieceElements * bytes[format], kernel.conditions.wide ? 16 : 8, label);
    assert.equal(c.PIECE_QUADS * 4, pieceElements, label);
    assert.ok(c.SLOTS * c.TEAM >= c.PIECES && (c.SLOTS - 1) * c.TEAM < c.PIECES, label);
    assert.equal(c.LANE_QUADS, c.SLOTS * c.PIECE_QUADS, label);
    assert.equal(c.TEAM * c.TEAMS, c.WORKGROUP, label);
    assert.equal(c.VALUES, c.ROWS * c.HEADS, label);
    assert.ok(c.ROWS >= 1 && c.HEADS >= 1 && Number.isInteger(c.ROWS * c.HEADS), label);
    assert.equal(params.group, group, label);
    const blocks = params.headBlocks;
    assert.ok(c.HEADS * blocks >= group && c.HEADS * (blocks - 1) < group, label);
    assert.equal(params.numWork, 2 * 2 * blocks, label);
  }
});

Deno.test("planDecode() never has a team wider than a subgroup, nor a workgroup beyond limits", () => {
  for (const [label, { kernel }] of plans()) {
    const c = kernel.constants;
    const size = label.match(/subgroups of (\d+)/);
    if (size) assert.ok(c.TEAM <= Number(size[1]), label);
    assert.equal(c.TEAM & (c.TEAM - 1), 0, label);
    assert.equal(kernel.roles.team, size ? "team/subgroups" : "team/workgroup", label);
    assert.ok(c.WORKGROUP <= 256, label);
  }
});

Deno.test("planDecode() rereads the cache at most ceil(group / 8) times where registers allow", () => {
  for (const group of [1, 2, 5, 8, 9, 16, 17, 64]) {
    const { params } = plan(128, [group, 1], "float16", 32);
    assert.equal(params.headBlocks, Math.ceil(group / 8), `group ${group}`);
  }
});

Deno.test("planDecode() gives one name to one kernel only", () => {
  const byName = new Map<string, string>();
  for (const [label, { kernel }] of plans()) {
    const { name, ...sources } = kernel;
    const text = JSON.stringify(sources);
    assert.equal(byName.get(name) ?? text, text, `${label}: ${name}`);
    byName.set(name, text);
  }
});

Deno.test("planDecode() refuses FP8 where no way to decode it is exact", () => {
  const k = { shape: [1, 5, 1, 8], dtype: "float8_e4m3fn" } as const;
  const { problem } = paddedDecode({ shape: [1, 1, 8], dtype: "float32" }, k, k, {});
  const none = { module: null, reason: "3 codes wrong" };
  const broken = { ...capabilities(8), fp8: { ...FP8, float8_e4m3fn: none } };
  assert.throws(() => planDecode(problem, broken), /3 codes wrong/);
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

Deno.test("every variant of the kernel links, with nothing left to unroll", async () => {
  for (const headDim of [8, 40, 128]) {
    for (const kvDtype of KV_DTYPES) {
      for (const size of [null, 8]) {
        const { kernel } = plan(headDim, [6, 2], kvDtype, size);
        for (const enable_subgroups of [true, false]) {
          const conditions = { ...kernel.conditions, enable_subgroups };
          const wgsl = await linkShader({ ...kernel, conditions });
          assert.doesNotMatch(wgsl, /@unroll|@if|\bimport\b/);
          assert.equal(/^\s*enable subgroups;/m.test(wgsl), enable_subgroups && size !== null);
        }
      }
    }
  }
});
