/** Options of decode that do not fit, and tensors among them: refused, and nothing is left behind. */

import assert from "node:assert/strict";
import {
  batchDecodeWithPaddedKvCache,
  type Device,
  openDevice,
  type PaddedDecodeOptions,
} from "@kvasir/attention";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";

const BOTH: readonly BackendName[] = ["wasm", "webgpu"];
const Q = [2, 6, 8];
const K = [2, 5, 3, 8];

/** An option, what its error names, and what it says. */
type BadOption = readonly [options: Record<string, unknown>, subject: string, message: RegExp];

const BAD: readonly BadOption[] = [
  [
    { qScale: [1, 2] },
    "options.qScale",
    /got 2 numbers, expected 6, one for each of the query heads/,
  ],
  [{ kScale: new Float32Array(6) }, "options.kScale", /got 6 numbers, expected 3/],
  [{ vScale: [] }, "options.vScale", /got 0 numbers, expected 3/],
  [{ kScale: [1, NaN, 1] }, "options.kScale[1]", /got NaN, expected a number that is finite/],
  [{ vScale: [1, 1, "1"] }, "options.vScale[2]", /got "1"/],
  [{ qScale: new Array(6) }, "options.qScale[0]", /got undefined/],
  [{ kScale: new DataView(new ArrayBuffer(12)) }, "options.kScale", /expected an array of numbers/],
  [{ smScale: 1e30, kScale: 1e30 }, "options.smScale", /product of smScale, qScale and kScale/],
  [{ sinks: 1 }, "options.sinks", /expected an array of numbers/],
  [{ sinks: [1, 2, 3] }, "options.sinks", /got 3 numbers, expected 6/],
  [{ sinks: [0, 0, 0, 0, 0, -Infinity] }, "options.sinks[5]", /got -Infinity/],
  [{ windowLeft: -2 }, "options.windowLeft", /expected an integer of at least -1/],
  [{ windowLeft: 1.5 }, "options.windowLeft", /got 1.5/],
  [{ windowLeft: "3" }, "options.windowLeft", /got "3"/],
  [{ windowLeft: Infinity }, "options.windowLeft", /got Infinity/],
  [{ logitsSoftCap: -1 }, "options.logitsSoftCap", /a number of at least 0/],
  [{ logitsSoftCap: NaN }, "options.logitsSoftCap", /finite in float32/],
  [{ ropeScale: 0 }, "options.ropeScale", /a number above 0/],
  [{ ropeTheta: -1e4, posEncodingMode: "ROPE_LLAMA" }, "options.ropeTheta", /above 0/],
  [{ ropeTheta: "1e4" }, "options.ropeTheta", /finite in float32/],
  [{ lseBase: "e" }, "options.lseBase", /expected "log2" or "ln"/],
  [{ outDtype: "fp8" }, "options.outDtype", /got "fp8", expected "float32", "float16"/],
  [{ outDtype: null }, "options.outDtype", /got null/],
  [{ allowFp16QkReduction: true }, "options.allowFp16QkReduction", /does not know/],
];

/** Runs a call of the good shapes with these options. */
async function call(device: Device, options: Record<string, unknown>): Promise<void> {
  using q = device.empty(Q, "float32");
  using cache = device.empty(K, "float16");
  const out = await batchDecodeWithPaddedKvCache(q, cache, cache, options as { returnLse?: false });
  out.destroy();
}

onEachBackend("options that do not fit are refused, each by its name", async (device) => {
  for (const [options, subject, message] of BAD) {
    const label = Object.keys(options).join();
    await assertFails(label, () => call(device, options), "OptionError", subject, message);
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 }, label);
  }
  await call(device, {
    windowLeft: -1,
    logitsSoftCap: 0,
    ropeTheta: 1,
    qScale: 1,
    outDtype: "float16",
  });
}, BOTH);

onEachBackend("rotary encoding refuses odd head dims", async (device) => {
  using q = device.empty([1, 2, 7], "float32");
  using cache = device.empty([1, 3, 2, 7], "float32");
  const work = () =>
    batchDecodeWithPaddedKvCache(q, cache, cache, { posEncodingMode: "ROPE_LLAMA" });
  const message = /with a head dim of 7, expected an even head dim/;
  await assertFails("D 7", work, "OptionError", "options.posEncodingMode", message);
}, ["wasm"]);

onEachBackend(
  "tensors among the options are held to their device, dtype and shape",
  async (device) => {
    using other = await openDevice({ backend: "wasm" });
    using foreign = other.tensor([1, 1, 1], [3], "float32");
    using half = device.tensor([1, 1, 1], [3], "float16");
    using square = device.tensor([1, 1, 1], [3, 1], "float32");
    using short = device.tensor([1, 1], [2], "float32");
    using infinite = device.tensor([1, Infinity, 1], [3], "float32");
    const gone = device.tensor([1, 1, 1], [3], "float32");
    gone.destroy();
    const cases: readonly [PaddedDecodeOptions, ErrorKind, string, RegExp][] = [
      [{ kScale: foreign }, "DeviceMismatchError", "options.kScale", /another device/],
      [{ kScale: half }, "DTypeError", "options.kScale", /float16.*expected float32 of rank 1/],
      [{ vScale: square }, "DTypeError", "options.vScale", /shape \[3, 1\]/],
      [{ kScale: short }, "OptionError", "options.kScale", /got 2 numbers, expected 3/],
      [{ sinks: short }, "OptionError", "options.sinks", /got 2 numbers, expected 6/],
      [{ vScale: infinite }, "OptionError", "options.vScale[1]", /got Infinity/],
      [{ kScale: gone }, "DestroyedError", "tensor", /destroyed/],
    ];
    for (const [options, kind, subject, message] of cases) {
      const label = `${Object.keys(options)} ${kind}`;
      const work = () => call(device, options as Record<string, unknown>);
      await assertFails(label, work, kind, subject, message);
    }
    using good = device.tensor([1, 1, 1], [3], "float32");
    await call(device, { kScale: good, vScale: good });
  },
  BOTH,
);

onEachBackend("a scale's tensor may be destroyed right after the call", async (device) => {
  using q = device.tensor(new Float32Array(6 * 8).fill(1), [1, 6, 8], "float32");
  using cache = device.tensor(new Float32Array(5 * 3 * 8).fill(1), [1, 5, 3, 8], "float32");
  const scale = device.tensor([1, 2, 4], [3], "float32");
  const sinks = [-1e4, -1e4, -1e4, -1e4, -1e4, -1e4];
  const promise = batchDecodeWithPaddedKvCache(q, cache, cache, { vScale: scale, sinks });
  scale.destroy();
  sinks.fill(1e4);
  using out = await promise;
  const values = await out.read();
  assert.deepEqual([0, 2, 4].map((head) => Math.round(values[head * 8])), [1, 2, 4]);
}, BOTH);
