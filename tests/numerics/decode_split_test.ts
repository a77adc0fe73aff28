/**
 * Long contexts and mixed lengths: on a GPU, keys are split over workgroups and merged, which must not
 * show.
 */

import assert from "node:assert/strict";
import { type DecodeSpec, decodeTest, makeInputs, runDecode } from "../support/decode.ts";
import { type BackendName, onEachBackend } from "../support/device.ts";

const GPUS: readonly BackendName[] = ["webgpu", "webgpu, portable rung"];

const LONG: DecodeSpec = { kvLen: 5000, heads: [3, 1], headDim: 32, kvDtype: "float16" };

decodeTest("decode: long contexts", [
  LONG,
  { ...LONG, kvLen: 4097, kvLayout: "HND" },
  { ...LONG, lseBase: "ln", sinks: [-2, 3, 12] },
  { ...LONG, posEncodingMode: "ALIBI", logitsSoftCap: 10 },
  { ...LONG, outDtype: "float8_e4m3fn", vScale: [2] },
  { ...LONG, heads: [2, 2], kvDtype: "float8_e4m3fn", windowLeft: 3000 },
]);

decodeTest("decode: mixed lengths", [
  {
    batch: 7,
    kvLen: 2500,
    heads: [2, 1],
    headDim: 32,
    kvDtype: "float16",
    seqLens: [2500, 0, 1, 64, 1023, 1024, 129],
  },
]);

decodeTest(
  "decode: lengths around every edge of tiles and stretches",
  [31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 383, 511, 513].map((kvLen) => ({
    kvLen,
    heads: [4, 1],
    headDim: 128, // 32 keys a step, so that workgroups take several
    kvDtype: "float16",
  })),
);

decodeTest("decode: the softmax's reference follows logits that grow", [
  { kvLen: 120, heads: [4, 1], headDim: 128, kvDtype: "float16", magnitude: 3 },
  { kvLen: 120, heads: [4, 1], headDim: 128, kvDtype: "float16", magnitude: 2, seed: 2 },
  { kvLen: 3000, heads: [4, 1], headDim: 128, kvDtype: "float16", magnitude: 2 },
]);

onEachBackend("the report names the merge where keys were split", async (device) => {
  await runDecode(device, makeInputs({ ...LONG, kvLen: 3000 }));
  const kernels = device.report.kernels.map(({ variant }) => variant).join();
  assert.match(kernels, /merge\.v-float32/);
}, GPUS);

onEachBackend("1000 runs give the same bits", async (device) => {
  const inputs = makeInputs({ ...LONG, kvLen: 700, heads: [4, 1] });
  const first = await runDecode(device, inputs);
  for (let i = 0; i < 999; i++) {
    const again = await runDecode(device, inputs);
    assert.deepEqual(again.out, first.out, `run ${i + 2}`);
    assert.deepEqual(again.lse, first.lse, `run ${i + 2}`);
  }
}, ["webgpu"]);

onEachBackend("infinite keys and values count the same, split or not", async (device) => {
  const { k, v, ...rest } = makeInputs(LONG);
  const inputs = { ...rest, k, v };
  const before = await runDecode(device, inputs);
  const [row] = [4321 * 32];
  v.bytes.set([0x00, 0x7c], (row + 5) * 2); // +Infinity at dim 5 of one token
  const after = await runDecode(device, inputs);
  for (let head = 0; head < 3; head++) {
    for (let d = 0; d < 32; d++) {
      const expected = d === 5 ? Infinity : before.out[head * 32 + d];
      assert.equal(after.out[head * 32 + d], expected, `head ${head}, dim ${d}`);
    }
  }
  assert.deepEqual(after.lse, before.lse);
});
