/** Cascades: what requests share computed once, against the oracle over all their keys. */

import assert from "node:assert/strict";
import { MultiLevelCascadeAttention } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { runCascade, type SharedPrefix, shareKeys } from "../support/cascade.ts";
import { onEachBackend } from "../support/device.ts";
import { cacheRow } from "../support/oracle.ts";
import {
  checkPrefill,
  describePrefill,
  makePrefill,
  type PrefillSpec,
} from "../support/prefill.ts";
import { normals } from "../support/values.ts";

const SPEC = {
  batch: 5,
  qoLen: 4,
  kvLen: 90,
  heads: [6, 2],
  headDim: 16,
  qoLens: [1, 4, 2, 1, 3],
  seqLens: [90, 71, 66, 80, 68],
} as const satisfies PrefillSpec;

const ONE: readonly SharedPrefix[] = [{ tokens: 60, groups: [0] }];
const TWO: readonly SharedPrefix[] = [
  { tokens: 33, groups: [0] },
  { tokens: 20, groups: [0, 2, 3] },
];

const CASES: readonly (readonly [PrefillSpec, number, readonly SharedPrefix[], boolean?])[] = [
  [SPEC, 16, ONE],
  [{ ...SPEC, causal: true }, 16, ONE],
  [{ ...SPEC, causal: true, kvLayout: "HND", kvDtype: "float8_e4m3fn", qDtype: "float16" }, 7, TWO],
  [{ ...SPEC, qoLen: 1, qoLens: [1, 1, 1, 1, 1], kvDtype: "float16" }, 1, TWO, false],
  [{ ...SPEC, sinks: [-1, 0, 1, 2, -3, 4], logitsSoftCap: 3, lseBase: "ln" }, 16, TWO],
  [{ ...SPEC, kScale: [0.5, 1.25], vScale: [2, -0.5], outDtype: "bfloat16" }, 5, ONE],
  [{ ...SPEC, seqLens: [60, 71, 60, 80, 60] }, 16, ONE],
  [{ ...SPEC, causal: true }, 16, []],
];
for (const [i, [spec, pageSize, shared, isJoined]] of CASES.entries()) {
  onEachBackend(`cascade ${i}: ${shared.length + 1} levels`, async (device) => {
    const inputs = makePrefill(spec);
    shareKeys(inputs, shared);
    await checkPrefill(
      device,
      describePrefill(spec),
      inputs,
      undefined,
      runCascade(pageSize, shared, isJoined),
    );
  });
}

onEachBackend("cascade: NaN codes that a group shares reach the group alone", async (device) => {
  // Requests 0 and 1, 2, and 3 and 4 share tokens 33 to 52; request 4 has no more.
  const spec = { ...SPEC, seqLens: [90, 71, 66, 80, 53], kvDtype: "float8_e4m3fn" } as const;
  const run = runCascade(7, TWO);
  const answer = (poisoned?: "k" | "v") => {
    const inputs = makePrefill(spec);
    if (poisoned) inputs[poisoned].bytes[cacheRow(inputs.problem, 3, 40, 1) + 5] = 0xff;
    shareKeys(inputs, TWO);
    return run(device, inputs);
  };
  const clean = await answer();
  for (const poisoned of ["k", "v"] as const) {
    const { out, lse } = await answer(poisoned);
    for (let row = 0; row < lse.length; row++) {
      const [request, query, head] = [Math.floor(row / 24), Math.floor(row / 6) % 4, row % 6];
      if (request >= 3 && query < SPEC.qoLens[request] && head >= 3) {
        const label = `${poisoned}: request ${request}, head ${head}`;
        for (let d = 0; d < 16; d++) {
          const isHit = poisoned === "k" || d === 5;
          assert.equal(Number.isNaN(out[row * 16 + d]), isHit, `${label}, ${d}`);
          if (isHit) out[row * 16 + d] = clean.out[row * 16 + d];
        }
        assert.equal(Number.isNaN(lse[row]), poisoned === "k", label);
        lse[row] = clean.lse[row];
      }
    }
    assertSameBits(out, clean.out, `${poisoned}: out`);
    assertSameBits(lse, clean.lse, `${poisoned}: lse`);
  }
});

const LEVEL = {
  qoIndptr: [0, 2],
  pagedKvIndptr: [0, 1],
  pagedKvIndices: [1],
  pagedKvLastPageLen: [3],
};
const PLAN = {
  levels: [LEVEL, {
    qoIndptr: [0, 1, 2],
    pagedKvIndptr: [0, 1, 2],
    pagedKvIndices: [0, 2],
    pagedKvLastPageLen: [1, 4],
  }],
  numQoHeads: 4,
  numKvHeads: 2,
  headDim: 8,
  pageSize: 4,
  qDtype: "float32",
  kvDtype: "float32",
} as const;

onEachBackend("cascade: what does not fit is refused, and the plan stays", async (device) => {
  assert.throws(() => new MultiLevelCascadeAttention(device, { numLevels: 0 }), {
    name: "OptionError",
  });
  using attention = new MultiLevelCascadeAttention(device, { numLevels: 2 });
  using q = device.tensor(normals(64, 1), [2, 4, 8], "float32");
  using cache = device.tensor(normals(3 * 2 * 4 * 16, 2), [3, 2, 4, 2, 8], "float32");
  await assert.rejects(attention.run(q, cache), { name: "PlanError" });
  attention.plan(PLAN);
  using before = await attention.run(q, cache);
  const [first, second] = PLAN.levels;
  const bad: readonly [Record<string, unknown>, RegExp][] = [
    [{ levels: [first] }, /1 levels, expected an array of 2/],
    [{ levels: null }, /expected an array of 2/],
    [{ levels: [first, { ...second, qoIndptr: [0, 1, 3] }] }, /levels\[1\].qoIndptr: got 3 rows/],
    [{ levels: [first, { ...second, qoIndptr: [0, 2] }] }, /levels\[1\].pagedKvIndptr/],
    [{ levels: [{ ...first, pagedKvLastPageLen: [5] }, second] }, /for request 0/],
    [{ levels: [{ ...first, pagedKvIndices: [-1] }, second] }, /levels\[0\].pagedKvIndices\[0\]/],
    [{ levels: [{ ...first, extra: 1 }, second] }, /does not know/],
    [{ posEncodingMode: "ROPE_LLAMA" }, /does not know/],
    [{ windowLeft: 3 }, /does not know/],
    [{ causal: 1 }, /expected true or false/],
  ];
  for (const [change, message] of bad) {
    assert.throws(
      () => attention.plan({ ...PLAN, ...change } as unknown as typeof PLAN),
      (error: Error) => error.name === "OptionError" && message.test(error.message),
      JSON.stringify(change),
    );
  }
  using small = device.tensor(normals(2 * 2 * 4 * 16, 2), [2, 2, 4, 2, 8], "float32");
  await assert.rejects(attention.run(q, small), /at least 3, by the plan/);
  using after = await attention.run(q, cache);
  assert.deepEqual(await after.read(), await before.read());
});
