/** Requests one after another: what padded requests give, from one plan run many times. */

import assert from "node:assert/strict";
import { BatchPrefillWithRaggedKvCache, type DType, type Tensor } from "@kvasir/attention";
import { assertSameAnswer, assertSameBits } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import {
  checkPrefill,
  makePrefill,
  type PrefillSpec,
  prefillTest,
  runPrefill,
} from "../support/prefill.ts";
import { indptrOf, runRagged } from "../support/ragged.ts";
import { normals } from "../support/values.ts";

const SMALL = {
  batch: 6,
  qoLen: 37,
  kvLen: 70,
  heads: [6, 2],
  headDim: 16,
  qoLens: [37, 5, 20, 1, 0, 33],
  seqLens: [70, 33, 7, 64, 12, 0],
} as const satisfies PrefillSpec;

prefillTest("ragged prefill: causal or not, in both layouts", [
  SMALL,
  { ...SMALL, causal: true },
  { ...SMALL, causal: true, kvLayout: "HND" },
  { ...SMALL, kvLayout: "HND", windowLeft: 20 },
], { run: runRagged });

const EDGES = [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129];

prefillTest(
  "ragged prefill: requests around tile edges",
  [1, 4, 7].map((stride) => ({
    batch: EDGES.length,
    qoLen: 129,
    kvLen: 129,
    heads: [3, 1],
    headDim: 16,
    causal: true,
    qoLens: EDGES,
    seqLens: EDGES.map((_, i) => EDGES[(i * stride + stride) % EDGES.length]),
  })),
  { run: runRagged },
);

prefillTest("ragged prefill: one query each, and none at all", [
  { ...SMALL, qoLens: [1, 1, 1, 1, 1, 1], causal: true },
  { ...SMALL, qoLens: [0, 0, 1, 0, 0, 0] },
  { ...SMALL, seqLens: [0, 0, 3, 0, 0, 0] },
], { run: runRagged });

const DTYPES: readonly (readonly [q: DType, kv: DType, out: DType])[] = [
  ["float16", "float8_e4m3fn", "float16"],
  ["float8_e5m2", "float8_e5m2", "float32"],
];

prefillTest(
  "ragged prefill: dtypes, head dims, every option",
  DTYPES.map(([qDtype, kvDtype, outDtype], i) => ({
    ...SMALL,
    headDim: 24,
    headDimV: 16,
    qDtype,
    kvDtype,
    outDtype,
    causal: true,
    kvLayout: i ? "HND" : "NHD",
    posEncodingMode: i ? "ALIBI" : "ROPE_LLAMA",
    qScale: [0.5, 1, 2, 1.5, 0.25, 0.75],
    kScale: [0.5, 1.25],
    vScale: [2, -0.5],
    windowLeft: 25,
    logitsSoftCap: 3,
    sinks: [-1, 0, 1, 2, -3, 4],
    lseBase: "ln",
  })),
  { run: runRagged },
);

onEachBackend("ragged prefill: what padded prefill gives", async (device) => {
  for (const kvLayout of ["NHD", "HND"] as const) {
    for (const causal of [true, false]) {
      const inputs = makePrefill({ ...SMALL, kvLayout, causal });
      const padded = await runPrefill(device, inputs);
      const ragged = await runRagged(device, inputs);
      ragged.out.forEach((x, i) => assert.ok(Math.abs(x - padded.out[i]) < 4e-6, `out ${i}`));
      ragged.lse.forEach((x, i) =>
        assert.ok(x === padded.lse[i] || Math.abs(x - padded.lse[i]) < 4e-6, `lse ${i}`)
      );
    }
  }
});

onEachBackend("ragged prefill: a request has the bits that it has alone", async (device) => {
  const { qoLens, seqLens } = SMALL;
  const joined = await runRagged(device, makePrefill({ ...SMALL, causal: true }));
  const inputs = makePrefill({ ...SMALL, causal: true });
  for (const request of [0, 1, 2]) {
    const alone = makePrefill({
      ...SMALL,
      batch: 1,
      qoLens: [qoLens[request]],
      seqLens: [seqLens[request]],
      causal: true,
    }, {
      q: inputs.q.values.slice(request * 37 * 96, (request + 1) * 37 * 96),
      k: inputs.k.values.slice(request * 70 * 32, (request + 1) * 70 * 32),
      v: inputs.v.values.slice(request * 70 * 32, (request + 1) * 70 * 32),
    });
    assertSameAnswer(await runRagged(device, alone), {
      out: joined.out.slice(request * 37 * 96, (request + 1) * 37 * 96),
      lse: joined.lse.slice(request * 37 * 6, (request + 1) * 37 * 6),
    }, `request ${request}`);
  }
});

const PLAN = {
  qoIndptr: [0, 4, 9],
  kvIndptr: [0, 7, 20],
  numQoHeads: 6,
  numKvHeads: 2,
  headDim: 16,
  qDtype: "float32",
  kvDtype: "float32",
} as const;

onEachBackend(
  "ragged prefill: one plan, many runs, into tensors of the caller's",
  async (device) => {
    const prefill = new BatchPrefillWithRaggedKvCache(device);
    prefill.plan({ ...PLAN, causal: true });
    using k = device.tensor(normals(20 * 32, 2), [20, 2, 16], "float32");
    using v = device.tensor(normals(20 * 32, 3), [20, 2, 16], "float32");
    using out = device.empty([9, 6, 16], "float32");
    using lse = device.empty([9, 6], "float32");
    for (let seed = 10; seed < 15; seed++) {
      using q = device.tensor(normals(9 * 96, seed), [9, 6, 16], "float32");
      const fresh = await prefill.run(q, k, v, { returnLse: true });
      using freshOut = fresh.out;
      using freshLse = fresh.lse;
      const given = await prefill.run(q, k, v, { returnLse: true, out, lse });
      assert.ok(given.out === out && given.lse === lse);
      assertSameBits(await out.read(), await freshOut.read(), `out, seed ${seed}`);
      assertSameBits(await lse.read(), await freshLse.read(), `lse, seed ${seed}`);
      using alone = await prefill.run(q, k, v);
      assertSameBits(await alone.read(), await out.read(), `without lse, seed ${seed}`);
      assert.equal(await prefill.run(q, k, v, { out }), out);
      assertSameBits(await out.read(), await alone.read(), `given out alone, seed ${seed}`);
    }
  },
);

onEachBackend(
  "ragged prefill: a run has the plan of its call, and plans are copies",
  async (device) => {
    using q = device.tensor(normals(9 * 96, 1), [9, 6, 16], "float32");
    using k = device.tensor(normals(20 * 32, 2), [20, 2, 16], "float32");
    using v = device.tensor(normals(20 * 32, 3), [20, 2, 16], "float32");
    const prefill = new BatchPrefillWithRaggedKvCache(device, { kvLayout: "NHD" });
    const read = async (pending: Promise<Tensor>) => {
      using out = await pending;
      return await out.read();
    };
    const options = { sinks: Float32Array.of(0, 1, 2, 3, 4, 5), vScale: [1, 2] };
    prefill.plan({ ...PLAN, ...options, causal: true });
    const causal = await read(prefill.run(q, k, v));
    const mutable = {
      ...PLAN,
      qoIndptr: Int32Array.from(PLAN.qoIndptr),
      kvIndptr: [...PLAN.kvIndptr],
      sinks: options.sinks.slice(),
      vScale: [...options.vScale],
      causal: true,
    };
    prefill.plan(mutable);
    for (const list of [mutable.qoIndptr, mutable.kvIndptr, mutable.sinks, mutable.vScale]) {
      list.fill(0);
    }
    const first = prefill.run(q, k, v);
    prefill.plan({ ...PLAN, ...options });
    const second = prefill.run(q, k, v);
    assertSameBits(await read(first), causal, "the plan of the call");
    const full = await read(second);
    assert.notDeepEqual(full, causal);
    // A plan that fails leaves the old one.
    assert.throws(() => prefill.plan({ ...PLAN, kvIndptr: [0, 7, 6] }));
    assertSameBits(await read(prefill.run(q, k, v)), full, "after a plan that failed");
  },
);

onEachBackend("ragged prefill: no request, no query, no key", async (device) => {
  const prefill = new BatchPrefillWithRaggedKvCache(device);
  for (const [qoLens, kvLens] of [[[], []], [[0], [3]], [[2], [0]], [[0, 0], [0, 0]]]) {
    const [qoIndptr, kvIndptr] = [indptrOf(qoLens), indptrOf(kvLens)];
    prefill.plan({ ...PLAN, qoIndptr, kvIndptr, causal: true });
    using q = device.empty([qoIndptr[qoLens.length], 6, 16], "float32");
    using k = device.empty([kvIndptr[kvLens.length], 2, 16], "float32");
    const result = await prefill.run(q, k, k, { returnLse: true });
    using out = result.out;
    using lse = result.lse;
    assert.deepEqual(out.shape, q.shape);
    assert.ok((await out.read()).every((x) => x === 0));
    assert.ok((await lse.read()).every((x) => x === -Infinity));
  }
});

onEachBackend("ragged prefill: packed masks", async (device) => {
  const spec: PrefillSpec = { ...SMALL, maskDensity: 0.4, kvLayout: "HND" };
  await checkPrefill(
    device,
    "packed",
    makePrefill(spec),
    undefined,
    (d, i) => runRagged(d, i, "packed"),
  );
});

onEachBackend("ragged prefill: other lengths are no other kernel", async (device) => {
  const planned = new BatchPrefillWithRaggedKvCache(device);
  const run = async (lengths: readonly number[]) => {
    const indptr = [0, ...lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b))];
    const tokens = indptr[lengths.length];
    using x = device.tensor(new Float32Array(tokens * 2 * 16), [tokens, 2, 16], "float32");
    const sizes = { numQoHeads: 2, numKvHeads: 2, headDim: 16 };
    const dtypes = { qDtype: "float32", kvDtype: "float32" } as const;
    planned.plan({ qoIndptr: indptr, kvIndptr: indptr, ...sizes, ...dtypes, causal: true });
    using out = await planned.run(x, x, x);
    await out.read();
    return device.report.kernels.length;
  };
  const before = await run([40, 50]);
  assert.equal(await run([41, 77, 50]), before);
}, ["webgpu", "webgpu, portable rung"]);
