/**
 * Variants of the caller's: what the library's own options do, said in WGSL, gives what they give;
 * numbers change without a compilation; errors speak of the caller's lines.
 */

import assert from "node:assert/strict";
import {
  BatchPrefillWithRaggedKvCache,
  type Device,
  OptionError,
  type PrefillOptions,
  ShaderError,
  singlePrefillWithKvCache,
} from "@kvasir/attention";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { normals } from "../support/values.ts";

const GPUS: readonly BackendName[] = ["webgpu", "webgpu, portable rung"];
const [QUERIES, KEYS, HEADS, KV_HEADS, DIM] = [21, 40, 6, 2, 16];

const q = normals(QUERIES * HEADS * DIM, 1);
const k = normals(KEYS * KV_HEADS * DIM, 2);
const v = normals(KEYS * KV_HEADS * DIM, 3);

async function run(device: Device, options: PrefillOptions): Promise<Float32Array> {
  using qTensor = device.tensor(q, [QUERIES, HEADS, DIM], "float32");
  using kTensor = device.tensor(k, [KEYS, KV_HEADS, DIM], "float32");
  using vTensor = device.tensor(v, [KEYS, KV_HEADS, DIM], "float32");
  using out = await singlePrefillWithKvCache(qTensor, kTensor, vTensor, {
    ...options,
    returnLse: false,
  });
  return await out.read();
}

function assertNear(got: Float32Array, wanted: Float32Array, what: string) {
  got.forEach((x, i) =>
    assert.ok(Math.abs(x - wanted[i]) < 2e-5, `${what}, ${i}: ${x}, not ${wanted[i]}`)
  );
}

/** `[options in WGSL, the same by the library's own options]`. */
const SAME: readonly (readonly [string, PrefillOptions, PrefillOptions])[] = [
  ["a soft cap", {
    causal: true,
    logitsTransform: "return params.cap * tanh(logit / params.cap);",
    variantParams: { cap: 3 },
  }, { causal: true, logitsSoftCap: 3 }],
  ["a scale, after the cap", {
    logitsTransform: "let factor = 2.0;\nreturn logit * factor;",
  }, { smScale: 2 / Math.sqrt(DIM) }],
  ["the diagonal", {
    logitsMask: `return key <= query + ${KEYS - QUERIES}u;`,
  }, { causal: true }],
  ["a mask beside causal", {
    causal: true,
    logitsMask: "return (key + query) % u32(params.stride) != 0u;",
    variantParams: { stride: 3 },
  }, {
    customMask: Array.from({ length: QUERIES * KEYS }, (_, i) => {
      const [query, key] = [Math.floor(i / KEYS), i % KEYS];
      return (key + query) % 3 !== 0 && key <= query + KEYS - QUERIES;
    }),
  }],
  ["a bias that grows with the key, for some heads, by two numbers and both functions", {
    logitsTransform: "if (head < 3u) { return logit; } return logit + params.a - params.b;",
    logitsMask: "return batch == 0u || params.b > 1e9;",
    variantParams: { a: 7, b: -2 },
  }, {}],
];

onEachBackend("variants give what the library's own options give", async (device) => {
  for (const [what, variant, own] of SAME) {
    assertNear(await run(device, variant), await run(device, own), what);
  }
}, GPUS);

onEachBackend("a variant's transform moves one head's logits only", async (device) => {
  const plain = await run(device, {});
  const moved = await run(device, {
    logitsTransform: "if (head == 4u && key == 2u) { return params.high; } return logit;",
    variantParams: { high: 100 },
  });
  for (let row = 0; row < QUERIES * HEADS; row++) {
    const isMoved = row % HEADS === 4;
    const wanted = isMoved
      ? v.subarray((2 * KV_HEADS + 1) * DIM, (2 * KV_HEADS + 2) * DIM)
      : plain.subarray(row * DIM, (row + 1) * DIM);
    assertNear(moved.subarray(row * DIM, (row + 1) * DIM), wanted, `row ${row}`);
  }
}, GPUS);

onEachBackend("other numbers of a variant are no other kernel", async (device) => {
  const kernels = () => device.report.kernels.length;
  const options = (cap: number): PrefillOptions => ({
    logitsTransform: "return clamp(logit, -params.cap, params.cap); // a text of this test alone",
    variantParams: { cap },
  });
  const wide = await run(device, options(1e6));
  const before = kernels();
  const narrow = await run(device, options(0));
  assert.equal(kernels(), before);
  assertNear(wide, await run(device, {}), "a cap beyond all logits");
  assert.notDeepEqual(narrow, wide);
}, GPUS);

onEachBackend("a ragged plan takes variants, of each request's own indices", async (device) => {
  const sizes = { numQoHeads: HEADS, numKvHeads: KV_HEADS, headDim: DIM };
  const dtypes = { qDtype: "float32", kvDtype: "float32" } as const;
  const indptr = { qoIndptr: [0, 9, QUERIES], kvIndptr: [0, 25, KEYS] };
  const planned = new BatchPrefillWithRaggedKvCache(device);
  using qTensor = device.tensor(q, [QUERIES, HEADS, DIM], "float32");
  using kTensor = device.tensor(k, [KEYS, KV_HEADS, DIM], "float32");
  using vTensor = device.tensor(v, [KEYS, KV_HEADS, DIM], "float32");
  planned.plan({ ...sizes, ...dtypes, ...indptr, logitsMask: "return batch == 1u || key < 5u;" });
  using out = await planned.run(qTensor, kTensor, vTensor);
  const mask = [
    ...Array.from({ length: 9 * 25 }, (_, i) => i % 25 < 5),
    ...new Array((QUERIES - 9) * 15).fill(true),
  ];
  planned.plan({ ...sizes, ...dtypes, ...indptr, customMask: mask });
  using wanted = await planned.run(qTensor, kTensor, vTensor);
  assertNear(await out.read(), await wanted.read(), "ragged");
}, GPUS);

onEachBackend("what does not compile is said in lines of the caller's text", async (device) => {
  const fails = async (options: PrefillOptions, subject: string, pattern: RegExp) => {
    await assert.rejects(run(device, options), (error) => {
      assert.ok(error instanceof ShaderError, String(error));
      assert.ok(error.message.startsWith(subject), error.message);
      assert.match(error.message, pattern);
      return true;
    });
  };
  await fails(
    { logitsTransform: "let a = 1.0;\nlet b = ;\nreturn a;" },
    "options.logitsTransform",
    /line 2 \(let b = ;\)/,
  );
  await fails(
    { logitsMask: "\n\nreturn keys == 1u;" },
    "options.logitsMask",
    /line 3 \(return keys == 1u;\).*keys/,
  );
  await fails({ logitsTransform: "return key;" }, "options.logitsTransform", /line 1/);
  await fails(
    { logitsTransform: "return logit;", logitsMask: "return params.missing > 0.0;" },
    "options.logitsMask",
    /missing/,
  );
  // Nothing of it is left.
  assertNear(
    await run(device, {}),
    await run(device, { logitsTransform: "return logit;" }),
    "after",
  );
}, GPUS);

onEachBackend("variants are for WebGPU", async (device) => {
  const text = { logitsMask: "return true;" };
  await assert.rejects(run(device, text), (error) => {
    return error instanceof OptionError && /logitsMask.*WebGPU/.test(error.message);
  });
}, ["wasm"]);

onEachBackend("variants that are none", async (device) => {
  const wrong: [PrefillOptions, RegExp][] = [
    [{ logitsTransform: "" }, /logitsTransform/],
    [{ logitsMask: 7 as unknown as string }, /logitsMask.*7/],
    [{ logitsMask: "return true;", variantParams: { "a b": 1 } }, /variantParams.*a b/],
    [{ logitsMask: "return true;", variantParams: { a: NaN } }, /variantParams\.a.*NaN/],
    [
      { logitsMask: "return true;", variantParams: [1] as unknown as Record<string, number> },
      /variantParams/,
    ],
  ];
  for (const [options, pattern] of wrong) {
    await assert.rejects(run(device, options), (error) => {
      assert.ok(error instanceof OptionError, String(error));
      assert.match(error.message, pattern);
      return true;
    });
  }
});
