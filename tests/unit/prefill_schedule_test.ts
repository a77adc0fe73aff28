/** Schedules of prefill, without a GPU: every pair of query and visible key once, balanced, no waste. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { REQUEST_WORDS } from "../../src/attention_problem.ts";
import {
  KEY_ALIGNMENT,
  type PrefillSchedule,
  schedulePrefill,
  visibleKeys,
} from "../../src/webgpu/prefill_schedule.ts";

interface Batch {
  /** Queries and keys of each request. */
  readonly lengths: readonly (readonly [number, number])[];
  readonly group: number;
  readonly numKvHeads: number;
  readonly causal: boolean;
  readonly windowLeft: number | null;
}

const OPTIONS = { tileRows: 128, tileKeys: 128, workgroups: 132 };

function problemOf({ lengths, group, numKvHeads, causal, windowLeft }: Batch) {
  const requests = new Uint32Array(lengths.length * REQUEST_WORDS);
  let row = 0;
  lengths.forEach(([qoLen, kvLen], i) => {
    requests.set([row, qoLen, kvLen, i], i * REQUEST_WORDS);
    row += qoLen;
  });
  const numRequests = lengths.length;
  return { requests, numRequests, numQoHeads: group * numKvHeads, numKvHeads, causal, windowLeft };
}

const llama: Omit<Batch, "lengths"> = { group: 4, numKvHeads: 8, causal: true, windowLeft: null };

/** The most keys that one of the device's takers has, by the mean. */
function imbalance({ works }: PrefillSchedule, workgroups: number, numKvHeads: number): number {
  const busy = new Float64Array(Math.floor(workgroups / numKvHeads));
  for (const { first, end } of works) busy[busy.indexOf(Math.min(...busy))] += end - first;
  return Math.max(...busy) / (busy.reduce((sum, keys) => sum + keys, 0) / busy.length);
}

Deno.test("schedulePrefill() gives every query every key that it sees, once", () => {
  const length = fc.tuple(fc.nat(300), fc.nat(2000));
  fc.assert(
    fc.property(
      fc.array(length, { minLength: 1, maxLength: 6 }),
      fc.constantFrom(1, 3, 4, 7, 64),
      fc.constantFrom(1, 8),
      fc.boolean(),
      fc.option(fc.nat(500), { nil: null }),
      fc.constantFrom(16, 64, 128),
      (lengths, group, numKvHeads, causal, windowLeft, tileRows) => {
        const problem = problemOf({ lengths, group, numKvHeads, causal, windowLeft });
        const { works, chunkKeys } = schedulePrefill(problem, { ...OPTIONS, tileRows });
        lengths.forEach(([qoLen], request) => {
          for (let query = 0; query < qoLen; query += 1 + Math.floor(qoLen / 5)) {
            const [first, end] = visibleKeys(problem, request, query, query);
            for (const row of [query * group, query * group + group - 1]) {
              const own = works.filter((work) =>
                work.request === request && work.firstRow <= row && row < work.firstRow + tileRows
              ).sort((a, b) => a.first - b.first);
              assert.ok(own.length > 0, "a query that sees nothing has a result too");
              if (first === end) continue;
              assert.ok(own[0].first <= first && end <= own[own.length - 1].end);
              own.forEach((work, i) => {
                if (i > 0) assert.equal(work.first, own[i - 1].end);
                assert.equal(work.first % KEY_ALIGNMENT, 0);
                if (Number.isFinite(chunkKeys)) {
                  assert.ok(work.first >= work.chunk * chunkKeys);
                  assert.ok(work.end <= (work.chunk + 1) * chunkKeys);
                }
              });
            }
          }
        });
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("schedulePrefill() visits no tile of keys that no row sees", () => {
  const lengths = [[4096, 4096]] as const;
  const pairs = ({ works }: PrefillSchedule) =>
    works.reduce((sum, { first, end }) => sum + end - first, 0) * OPTIONS.tileRows;
  const causal = pairs(schedulePrefill(problemOf({ ...llama, lengths }), OPTIONS));
  assert.ok(causal < 4 * 4096 * 4096 * 0.51, "half of the pairs, and a little of the diagonal");
  const windowLeft = 255;
  const window = pairs(schedulePrefill(problemOf({ ...llama, lengths, windowLeft }), OPTIONS));
  assert.ok(window < 4 * 4096 * (256 + 32 + KEY_ALIGNMENT));
});

Deno.test("schedulePrefill() balances a ragged batch within 1.2 of the mean", () => {
  const batches: [number, number][][] = [
    [[4096, 4096]],
    [[8192, 8192], [100, 100], [1000, 3000], [7, 12_000], [2000, 2000]],
    Array.from({ length: 40 }, (_, i) => [1 + 53 * i, 1 + 97 * i]),
    [[16, 32_768]],
    [[1, 100_000], [3, 50_000], [64, 64]],
  ];
  for (const lengths of batches) {
    const schedule = schedulePrefill(problemOf({ ...llama, lengths }), OPTIONS);
    const ratio = imbalance(schedule, OPTIONS.workgroups, llama.numKvHeads);
    assert.ok(ratio <= 1.2, `${lengths.slice(0, 5).join(" ")}: ${ratio}`);
  }
});

Deno.test("schedulePrefill() splits keys for few queries, and not where tiles fill the device", () => {
  const chunks = (lengths: Batch["lengths"]) =>
    schedulePrefill(problemOf({ ...llama, lengths }), OPTIONS).chunkKeys;
  assert.ok(Number.isFinite(chunks([[16, 32_768]])));
  assert.equal(chunks([[8192, 8192]]), Infinity);
  assert.equal(chunks([[16, 64]]), Infinity);
});
