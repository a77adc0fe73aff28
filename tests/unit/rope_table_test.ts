/** The turns of rotary encoding: products of two entries are the turn of any position. */

import assert from "node:assert/strict";
import { ropeTable } from "../../src/webgpu/rope_table.ts";

Deno.test("ropeTable() holds factors of every position's turn", () => {
  const headDim = 24;
  for (const [scale, theta] of [[1, 1e4], [4, 5e5]]) {
    const { turns, coarse } = ropeTable(headDim, { scale, theta }, 200_000);
    for (const position of [0, 1, 255, 256, 257, 4096, 131_071, 199_999]) {
      for (let i = 0; i < headDim / 2; i++) {
        const entry = (base: number, row: number) => {
          const at = 4 * (base + (row * headDim / 8 + Math.floor(i / 4)) * 2) + i % 4;
          return [turns[at], turns[at + 4]];
        };
        const [c1, s1] = entry(0, position % 256);
        const [c2, s2] = entry(coarse, Math.floor(position / 256));
        const angle = position * theta ** (-2 * i / headDim) / scale;
        assert.ok(Math.abs(c1 * c2 - s1 * s2 - Math.cos(angle)) < 2e-7, `${position}, ${i}`);
        assert.ok(Math.abs(s1 * c2 + c1 * s2 - Math.sin(angle)) < 2e-7, `${position}, ${i}`);
      }
    }
  }
});
