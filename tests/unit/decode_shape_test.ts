/** The layout of the decode kernel, without a GPU: every element and head once, within limits. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import { paddedDecode } from "../../src/decode_problem.ts";
import { type DecodeShape, decodeShape } from "../../src/webgpu/decode_shape.ts";
import { capabilities } from "../support/capabilities.ts";

const SUBGROUP_SIZES = [null, 4, 8, 16, 32, 64, 128];
const KV_DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const;
const BYTES = { float32: 4, float16: 2, bfloat16: 2, float8_e4m3fn: 1, float8_e5m2: 1 };
const ROPE = { scale: 1, theta: 1e4 };

function shape(
  headDim: number,
  group: number,
  kvDtype: DType,
  subgroupSize: number | null,
  rope: typeof ROPE | null = null,
): DecodeShape {
  const k = { shape: [2, 5, 2, headDim], dtype: kvDtype };
  const q = { shape: [2, 2 * group, headDim], dtype: "float16" } as const;
  const { problem } = paddedDecode(q, k, k, {});
  return decodeShape({ ...problem, rope }, capabilities(subgroupSize));
}

/** Layouts of every head dim, dtype and subgroup size, over some groups, with and without turns. */
function* shapes() {
  for (let headDim = 8; headDim <= 512; headDim += 8) {
    for (const kvDtype of KV_DTYPES) {
      for (const size of SUBGROUP_SIZES) {
        for (const group of [1, 2, 3, 4, 5, 7, 8, 9, 17, 64]) {
          for (const rope of [null, ROPE]) {
            const label = `D ${headDim}, ${kvDtype}, group ${group}, subgroups of ${size}` +
              (rope ? ", turned" : "");
            const made = shape(headDim, group, kvDtype, size, rope);
            yield { label, made, headDim, kvDtype, size, group, rope };
          }
        }
      }
    }
  }
}

Deno.test("decodeShape() covers every element of a row, and every head of a group, once", () => {
  for (const { label, made, headDim, kvDtype, group, rope } of shapes()) {
    const c = made.constants;
    const halves = rope ? 2 : 1;
    assert.equal(c.PIECES * made.pieceElements, headDim, label);
    assert.equal(c.HALF_PIECES * halves, c.PIECES, label);
    assert.equal(c.SLOTS, c.HALF_SLOTS * halves, label);
    assert.equal(made.pieceElements, c.PIECE_QUADS * 4, label);
    assert.ok([4, 8, 16].includes(made.pieceElements * BYTES[kvDtype]), label);
    assert.equal(c.PIECE_QUADS * 4, made.pieceElements, label);
    assert.equal(c.LANE_QUADS, c.SLOTS * c.PIECE_QUADS, label);
    assert.equal(c.LANE_QUADS % c.MERGE_QUADS, 0, label);
    assert.ok(c.HALF_SLOTS * c.TEAM >= c.HALF_PIECES, label);
    assert.ok((c.HALF_SLOTS - 1) * c.TEAM < c.HALF_PIECES, label);
    assert.equal(made.isPadded, c.HALF_SLOTS * c.TEAM !== c.HALF_PIECES, label);
    const places = c.HEADS * c.PARTS;
    assert.ok(places * made.headBlocks >= group, label);
    assert.ok(places * (made.headBlocks - 1) < group, label);
    assert.equal(c.TEAM * c.PARTS * c.TEAMS, c.WORKGROUP, label);
    assert.equal(made.stepKeys, c.TEAMS * c.ROWS, label);
  }
});

Deno.test("decodeShape() shares the values of a team among its lanes", () => {
  for (const { label, made: { constants: c, rung } } of shapes()) {
    assert.equal(c.VALUES, c.ROWS * c.HEADS, label);
    assert.equal(c.OWN * c.TEAM / c.COPIES, c.VALUES, label);
    assert.equal(c.TEAM, c.COPIES * 2 ** c.HALVINGS, label);
    assert.equal(2 ** c.STAGES, c.TEAM, label);
    assert.equal(c.REFS, Math.min(c.OWN, c.HEADS), label);
    // A lane owns whole rows, or a part of one row's heads.
    assert.ok(c.OWN % c.HEADS === 0 || c.HEADS % c.OWN === 0, label);
    assert.equal(c.ROW_STRIDE, c.COPIES * Math.max(1, c.HEADS / c.OWN), label);
    if (rung === "workgroup") assert.equal(c.OWN, c.VALUES, label);
    else assert.ok(c.OWN === 1 || c.COPIES === 1 || c.OWN % 2 === 1, label);
  }
});

Deno.test("decodeShape() never has a team wider than a subgroup, nor a workgroup beyond limits", () => {
  for (const { label, made: { constants: c }, size } of shapes()) {
    if (size) assert.ok(c.TEAM <= size, label);
    assert.equal(c.TEAM & (c.TEAM - 1), 0, label);
    assert.equal(c.ROWS & (c.ROWS - 1), 0, label);
    assert.ok(c.WORKGROUP <= 256, label);
    const words = c.TEAMS * c.PARTS * c.HEADS * 2 + c.WORKGROUP * c.MERGE_QUADS * 4;
    const sums = size === null ? c.WORKGROUP * c.VALUES : 0;
    const marks = 1 + c.SLOTS * c.TEAM * c.PIECE_QUADS;
    assert.ok(4 * (words + sums + marks) <= 16384, `${label}: workgroup memory`);
  }
});

Deno.test("decodeShape() reads the cache at most ceil(group / 8) times", () => {
  for (const { label, made, size, group } of shapes()) {
    // With subgroups of 4 or less, 8 heads of 512 dims do not fit a workgroup's registers.
    if (size !== null && size < 8) continue;
    assert.ok(made.headBlocks <= Math.ceil(group / 8), label);
  }
});

Deno.test("decodeShape() takes tuning constants", () => {
  const k = { shape: [1, 5, 1, 128], dtype: "float16" } as const;
  const { problem } = paddedDecode({ shape: [1, 4, 128], dtype: "float16" }, k, k, {});
  const tuning = { heads: 2, laneElements: 8, rows: 2, workgroup: 128 };
  const { constants: c } = decodeShape(problem, capabilities(32), tuning);
  const { HEADS, PARTS, TEAM, ROWS, WORKGROUP } = c;
  assert.deepEqual({ HEADS, PARTS, TEAM, ROWS, WORKGROUP }, {
    HEADS: 2,
    PARTS: 2,
    TEAM: 16,
    ROWS: 2,
    WORKGROUP: 128,
  });
});
