/** Which kernel attention is planned for, and what of the plan before serves again. */

import assert from "node:assert/strict";
import type { PrefillOptions } from "../../src/options.ts";
import { singlePrefill } from "../../src/prefill_problem.ts";
import { planAttention, reasonsOf } from "../../src/webgpu/attention_plan.ts";
import { capabilities } from "../support/capabilities.ts";

const GPU = capabilities(32);

function problemOf(queries: number, keys: number, options: PrefillOptions = {}, headDimV = 64) {
  return singlePrefill(
    { shape: [queries, 6, 64], dtype: "float16" },
    { shape: [keys, 2, 64], dtype: "float16" },
    { shape: [keys, 2, headDimV], dtype: "float16" },
    options,
  ).problem;
}

Deno.test("planAttention() gives decode one query that hides nothing, and prefill the rest", () => {
  const decode = [problemOf(1, 50), problemOf(1, 50, { causal: true, windowLeft: 9 })];
  for (const problem of decode) assert.equal(planAttention(problem, GPU).family, "decode");
  const prefill = [
    problemOf(2, 50),
    problemOf(1, 50, {}, 32),
    problemOf(1, 50, { customMask: Array(50).fill(true) }),
    problemOf(1, 50, { logitsMask: "fn mask(key: u32) -> bool { return true; }" }),
  ];
  for (const problem of prefill) assert.equal(planAttention(problem, GPU).family, "prefill");
});

Deno.test("planAttention() takes the kernel of the plan before, if that was decode's", () => {
  const problem = problemOf(1, 50);
  const shorter = { ...problem, requests: Uint32Array.of(0, 1, 49, 0) };
  const before = { problem, plan: planAttention(problem, GPU) };
  assert.equal(planAttention(shorter, GPU, before).kernel, before.plan.kernel);
  const two = { ...problem, requests: Uint32Array.of(0, 2, 50, 0) };
  const prefill = { problem: two, plan: planAttention(two, GPU) };
  assert.equal(prefill.plan.family, "prefill");
  assert.deepEqual(planAttention(problem, GPU, prefill), before.plan);
});

Deno.test("reasonsOf() names the merge where keys are split, and only there", () => {
  const families = (keys: number, queries: number) =>
    [...reasonsOf(planAttention(problemOf(queries, keys), GPU)).values()].map(([family]) => family);
  assert.deepEqual(families(64, 1), ["decode"]);
  assert.deepEqual(families(200_000, 1), ["decode", "merge"]);
  assert.deepEqual(families(64, 4), ["prefill"]);
  assert.deepEqual(families(200_000, 4), ["prefill", "merge"]);
});
