/** Decode calls that do not fit: each is refused by its typed error, and leaves all as it was. */

import assert from "node:assert/strict";
import {
  batchDecodeWithPaddedKvCache,
  type Device,
  type DType,
  openDevice,
  singleDecodeWithKvCache,
  type Tensor,
} from "@kvasir/attention";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";

// Whether a call fits is found out before any kernel is chosen: two backends say it all.
const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

/** How a bad call differs from a good one. */
interface BadCall {
  readonly label: string;
  readonly q?: readonly number[];
  readonly k?: readonly number[];
  /** k's shape, unless given. */
  readonly v?: readonly number[];
  readonly qDtype?: DType;
  readonly kDtype?: DType;
  readonly vDtype?: DType;
  readonly options?: Record<string, unknown>;
  readonly kind: ErrorKind;
  readonly subject: string;
  readonly message: RegExp;
}

const Q = [2, 6, 8];
const K = [2, 5, 3, 8];

const BAD_BATCHES: readonly BadCall[] = [
  {
    label: "q of rank 2",
    q: [6, 8],
    kind: "ShapeError",
    subject: "q",
    message: /got shape \[6, 8\], expected 3 dims, \[B, Hq, D\]/,
  },
  {
    label: "q of rank 4",
    q: [2, 1, 6, 8],
    kind: "ShapeError",
    subject: "q",
    message: /\[2, 1, 6, 8\]/,
  },
  {
    label: "k of rank 3",
    k: [5, 3, 8],
    kind: "ShapeError",
    subject: "k",
    message: /got shape \[5, 3, 8\], expected 4 dims, \[B, L, Hkv, D\]/,
  },
  {
    label: "k of rank 3, HND",
    k: [5, 3, 8],
    options: { kvLayout: "HND" },
    kind: "ShapeError",
    subject: "k",
    message: /\[B, Hkv, L, D\]/,
  },
  {
    label: "another batch",
    k: [3, 5, 3, 8],
    kind: "ShapeError",
    subject: "k",
    message: /a batch of 3 .*expected q's batch of 2/,
  },
  {
    label: "heads that do not divide",
    q: [2, 7, 8],
    kind: "ShapeError",
    subject: "q",
    message: /7 query heads over 3 KV heads.*multiple/,
  },
  {
    label: "fewer query heads than KV heads",
    q: [2, 1, 8],
    kind: "ShapeError",
    subject: "q",
    message: /1 query heads over 3 KV heads/,
  },
  {
    label: "the other layout's shape",
    options: { kvLayout: "HND" },
    kind: "ShapeError",
    subject: "q",
    message: /6 query heads over 5 KV heads.*kvLayout/,
  },
  {
    label: "no query heads",
    q: [2, 0, 8],
    kind: "ShapeError",
    subject: "q",
    message: /0 query heads/,
  },
  {
    label: "no KV heads",
    k: [2, 5, 0, 8],
    kind: "ShapeError",
    subject: "q",
    message: /over 0 KV heads/,
  },
  {
    label: "another head dim",
    k: [2, 5, 3, 16],
    kind: "ShapeError",
    subject: "k",
    message: /a head dim of 16 .*expected q's head dim of 8/,
  },
  {
    label: "no head dim",
    q: [2, 6, 0],
    k: [2, 5, 3, 0],
    kind: "ShapeError",
    subject: "k",
    message: /a head dim of 0/,
  },
  {
    label: "v shorter than k",
    v: [2, 4, 3, 8],
    kind: "ShapeError",
    subject: "v",
    message: /got shape \[2, 4, 3, 8\], expected k's shape, \[2, 5, 3, 8\]/,
  },
  {
    label: "v of another rank",
    v: [2, 5, 24],
    kind: "ShapeError",
    subject: "v",
    message: /\[2, 5, 24\]/,
  },
  {
    label: "too few lengths",
    options: { seqLens: [5] },
    kind: "OptionError",
    subject: "options.seqLens",
    message: /got 1 lengths, expected 2, one a request/,
  },
  {
    label: "too many lengths",
    options: { seqLens: [5, 5, 5] },
    kind: "OptionError",
    subject: "options.seqLens",
    message: /3 lengths/,
  },
  ...[6, -1, 2.5, NaN, Infinity, 2 ** 32 + 1].map((length): BadCall => ({
    label: `a length of ${length}`,
    options: { seqLens: [5, length] },
    kind: "OptionError",
    subject: "options.seqLens",
    message: new RegExp(`got ${length} for request 1, expected an integer from 0 to 5`),
  })),
  ...["3", null, undefined, {}].map((length): BadCall => ({
    label: `${String(length)} for a length`,
    options: { seqLens: [5, length] },
    kind: "OptionError",
    subject: "options.seqLens",
    message: /for request 1/,
  })),
  ...[5, "5", { length: 2 }, null].map((seqLens): BadCall => ({
    label: `${JSON.stringify(seqLens)} for seqLens`,
    options: { seqLens },
    kind: "OptionError",
    subject: "options.seqLens",
    message: /array/,
  })),
];

/** Makes the tensors of a call, runs it and frees the tensors. */
async function call(device: Device, bad: Partial<BadCall>, single = false): Promise<unknown> {
  const skippedDims = single ? 1 : 0;
  const kShape = bad.k ?? K.slice(skippedDims);
  const kDtype = bad.kDtype ?? "float32";
  using q = device.empty(bad.q ?? Q.slice(skippedDims), bad.qDtype ?? "float32");
  using k = device.empty(kShape, kDtype);
  using v = device.empty(bad.v ?? kShape, bad.vDtype ?? kDtype);
  const decode = single ? singleDecodeWithKvCache : batchDecodeWithPaddedKvCache;
  const out = await decode(q, k, v, bad.options as { returnLse?: false });
  out.destroy();
  return out;
}

onEachBackend("batchDecodeWithPaddedKvCache() refuses what does not fit", async (device) => {
  for (const bad of BAD_BATCHES) {
    await assertFails(bad.label, () => call(device, bad), bad.kind, bad.subject, bad.message);
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 }, bad.label);
    await call(device, {});
  }
}, BOTH);

onEachBackend("singleDecodeWithKvCache() refuses what does not fit", async (device) => {
  const cases: readonly (Partial<BadCall> & { label: string; message: RegExp })[] = [
    { label: "a batch", q: Q, k: K, subject: "q", message: /expected 2 dims, \[Hq, D\]/ },
    { label: "a batch of k", k: K, subject: "k", message: /expected 3 dims, \[L, Hkv, D\]/ },
    { label: "heads", q: [4, 8], subject: "q", message: /4 query heads over 3 KV heads/ },
    { label: "head dims", q: [6, 16], subject: "k", message: /a head dim of 8/ },
    { label: "v's shape", v: [5, 3, 16], subject: "v", message: /expected k's shape/ },
  ];
  for (const bad of cases) {
    const work = () => call(device, bad, true);
    await assertFails(bad.label, work, "ShapeError", bad.subject!, bad.message);
  }
  const withLengths = () => call(device, { options: { seqLens: [5] } }, true);
  await assertFails("seqLens", withLengths, "OptionError", "options.seqLens", /does not know/);
  await call(device, {}, true);
}, BOTH);

onEachBackend("the calls refuse what is no tensor", async (device) => {
  using good = device.empty(Q, "float32");
  using cache = device.empty(K, "float32");
  for (const bad of [undefined, null, 5, "q", [1, 2], new Float32Array(96), { ...good }]) {
    const tensor = bad as unknown as Tensor;
    const calls: readonly [string, () => unknown][] = [
      ["q", () => batchDecodeWithPaddedKvCache(tensor, cache, cache)],
      ["k", () => batchDecodeWithPaddedKvCache(good, tensor, cache)],
      ["v", () => singleDecodeWithKvCache(good, cache, tensor)],
    ];
    for (const [name, work] of calls) {
      await assertFails(`${name} is ${bad}`, work, "OptionError", name, /expected a tensor/);
    }
  }
}, BOTH);

onEachBackend("the calls refuse tensors of two devices", async (device) => {
  using other = await openDevice({ backend: "wasm" });
  using q = device.empty(Q, "float32");
  using cache = device.empty(K, "float32");
  using foreign = other.empty(K, "float32");
  for (const [name, k, v] of [["k", foreign, cache], ["v", cache, foreign]] as const) {
    const work = () => batchDecodeWithPaddedKvCache(q, k, v);
    await assertFails(name, work, "DeviceMismatchError", name, /got a tensor of another device/);
  }
  await call(device, {});
}, BOTH);

onEachBackend("head dims that WebGPU's kernels do not take are a limit", async (device) => {
  for (const headDim of [1, 4, 12, 63]) {
    const shapes = { q: [2, 6, headDim], k: [2, 5, 3, headDim] };
    const message = new RegExp(`a head dim of ${headDim}, expected a multiple of 8`);
    await assertFails(`D ${headDim}`, () => call(device, shapes), "LimitError", "q", message);
  }
  await call(device, {});
}, ["webgpu", "webgpu, portable rung"]);
