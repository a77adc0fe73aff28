/** Prefill calls that do not fit: each is refused by its typed error, and leaves all as it was. */

import assert from "node:assert/strict";
import {
  batchPrefillWithPaddedKvCache,
  type Device,
  type DType,
  openDevice,
  type PaddedPrefillOptions,
  singlePrefillWithKvCache,
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
  readonly vDtype?: DType;
  readonly options?: Record<string, unknown>;
  readonly kind: ErrorKind;
  readonly subject: string;
  readonly message: RegExp;
}

/** q [B, N, Hq, D] over k [B, L, Hkv, D]. */
const Q = [2, 4, 6, 8];
const K = [2, 5, 3, 8];

const BAD_SHAPES: readonly BadCall[] = [
  ...[[6, 8], [4, 6, 8], [1, 2, 4, 6, 8]].map((q): BadCall => ({
    label: `q of rank ${q.length}`,
    q,
    kind: "ShapeError",
    subject: "q",
    message: /expected 4 dims, \[B, N, Hq, D\]/,
  })),
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
    message: /expected 4 dims, \[B, Hkv, L, D\]/,
  },
  {
    label: "a batch of k",
    k: [3, 5, 3, 8],
    kind: "ShapeError",
    subject: "k",
    message: /a batch of 3.*q's batch of 2/,
  },
  {
    label: "heads",
    q: [2, 4, 4, 8],
    kind: "ShapeError",
    subject: "q",
    message: /4 query heads over 3 KV heads/,
  },
  {
    label: "heads of HND",
    options: { kvLayout: "HND" },
    kind: "ShapeError",
    subject: "q",
    message: /6 query heads over 5 KV heads/,
  },
  {
    label: "no heads",
    q: [2, 4, 0, 8],
    kind: "ShapeError",
    subject: "q",
    message: /0 query heads/,
  },
  {
    label: "head dims",
    q: [2, 4, 6, 16],
    kind: "ShapeError",
    subject: "k",
    message: /a head dim of 8.*q's head dim of 16/,
  },
  {
    label: "no head dim",
    q: [2, 4, 6, 0],
    k: [2, 5, 3, 0],
    kind: "ShapeError",
    subject: "k",
    message: /head dim of 0, at least 1/,
  },
  ...[[2, 5, 3], [2, 6, 3, 8], [2, 5, 6, 8], [1, 5, 3, 8], [2, 5, 3, 0], [2, 5, 3, 8, 1], []].map(
    (v): BadCall => ({
      label: `v of [${v}]`,
      v,
      kind: "ShapeError",
      subject: "v",
      message: /expected k's shape, \[2, 5, 3, 8\], with a head dim of at least 1/,
    }),
  ),
];

/** Each value of one option, refused. */
function bad(
  name: string,
  message: RegExp,
  values: readonly unknown[],
  subject = `options.${name}`,
): BadCall[] {
  return values.map((value) => ({
    label: `${name} ${Array.isArray(value) ? `[${value.map(String)}]` : String(value)}`,
    options: { [name]: value },
    kind: "OptionError",
    subject,
    message,
  }));
}

const GOOD_MASK = new Array(2 * 4 * 5).fill(true);

const BAD_OPTIONS: readonly BadCall[] = [
  ...["qolens", "custom_mask", "mask", "headDimV", "qoIndptr", "out", "allowFp16QkReduction"].map(
    (name): BadCall => ({
      label: `the unknown option ${name}`,
      options: { [name]: 1 },
      kind: "OptionError",
      subject: `options.${name}`,
      message: /does not know, expected one of .*causal, customMask, packedCustomMask/,
    }),
  ),
  ...bad("causal", /expected true or false/, [0, 1, "true", {}]),
  ...bad("qoLens", /2, one a request/, [[], [4], [4, 4, 4], new Int32Array(3)]),
  ...bad("qoLens", /expected an array of numbers/, [4, "44", { length: 2 }, null, new Set([1, 2])]),
  ...[-1, 5, 1.5, NaN, Infinity, "4", null, 2n].flatMap((length) =>
    bad("qoLens", /for request 1, expected an integer from 0 to 4, q's rows/, [[4, length]])
  ),
  ...[-1, 6, 1.5, NaN, "5"].flatMap((length) =>
    bad("seqLens", /for request 0, expected an integer from 0 to 5, the cache's/, [[length, 5]])
  ),
  ...bad("customMask", /expected an array of booleans/, [
    true,
    1,
    null,
    "1".repeat(40),
    {},
    { length: 40 },
    new DataView(new ArrayBuffer(40)),
    new ArrayBuffer(40),
  ]),
  ...bad("customMask", /elements, expected 40, for masks of 4 x 5, 4 x 5/, [
    [],
    GOOD_MASK.slice(1),
    [...GOOD_MASK, true],
    new Uint8Array(5),
    new Array(8),
  ]),
  ...[2, -1, 0.5, NaN, "1", null, undefined, [], 1n, {}].flatMap((value) =>
    bad("customMask", /expected true, false, 1 or 0/, [
      GOOD_MASK.map((good, i) => i === 23 ? value : good),
    ], "options.customMask[23]")
  ),
  ...bad("packedCustomMask", /expected a Uint8Array/, [
    [0, 0, 0, 0, 0, 0],
    new Int8Array(6),
    new Uint8ClampedArray(6),
    new Uint32Array(6),
    new ArrayBuffer(6),
    null,
    true,
  ]),
  // Each request's 20 bits begin with a byte of their own: 3 and 3, not 5.
  ...bad("packedCustomMask", /bytes, expected 6, for masks of 4 x 5, 4 x 5/, [
    new Uint8Array(0),
    new Uint8Array(5),
    new Uint8Array(7),
    new Uint8Array(40),
  ]),
  {
    label: "two masks",
    options: { customMask: GOOD_MASK, packedCustomMask: new Uint8Array(6) },
    kind: "OptionError",
    subject: "options.packedCustomMask",
    message: /got customMask as well/,
  },
];

/** Makes the tensors of a call, runs it and frees the tensors. */
async function call(device: Device, bad: Partial<BadCall>, single = false): Promise<unknown> {
  const skippedDims = single ? 1 : 0;
  const kShape = bad.k ?? K.slice(skippedDims);
  using q = device.empty(bad.q ?? Q.slice(skippedDims), "float32");
  using k = device.empty(kShape, "float32");
  using v = device.empty(bad.v ?? kShape, bad.vDtype ?? "float32");
  const prefill = single ? singlePrefillWithKvCache : batchPrefillWithPaddedKvCache;
  const out = await prefill(q, k, v, bad.options as { returnLse?: false });
  out.destroy();
  return out;
}

onEachBackend("batchPrefillWithPaddedKvCache() refuses what does not fit", async (device) => {
  for (const bad of [...BAD_SHAPES, ...BAD_OPTIONS]) {
    await assertFails(bad.label, () => call(device, bad), bad.kind, bad.subject, bad.message);
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 }, bad.label);
  }
  for (const options of [null, 5, "NHD", true]) {
    const work = () => call(device, { options: options as never });
    await assertFails(`options ${options}`, work, "OptionError", "options", /an object/);
  }
}, BOTH);

onEachBackend("singlePrefillWithKvCache() refuses what does not fit", async (device) => {
  const cases: readonly (Partial<BadCall> & { label: string; message: RegExp })[] = [
    { label: "a batch", q: Q, k: K, subject: "q", message: /expected 3 dims, \[N, Hq, D\]/ },
    { label: "a batch of k", k: K, subject: "k", message: /expected 3 dims, \[L, Hkv, D\]/ },
    { label: "heads", q: [4, 4, 8], subject: "q", message: /4 query heads over 3 KV heads/ },
    { label: "head dims", q: [4, 6, 16], subject: "k", message: /a head dim of 8/ },
    { label: "v's shape", v: [5, 6, 8], subject: "v", message: /expected k's shape/ },
  ];
  for (const bad of cases) {
    const work = () => call(device, bad, true);
    await assertFails(bad.label, work, "ShapeError", bad.subject!, bad.message);
  }
  for (const name of ["seqLens", "qoLens"]) {
    const work = () => call(device, { options: { [name]: [3] } }, true);
    await assertFails(name, work, "OptionError", `options.${name}`, /does not know/);
  }
  const work = () => call(device, { options: { customMask: [true] } }, true);
  const message = /1 elements, expected 20, for masks of 4 x 5/;
  await assertFails("customMask", work, "OptionError", "options.customMask", message);
}, BOTH);

onEachBackend("prefill takes options at the ends of their ranges", async (device) => {
  const good: readonly PaddedPrefillOptions[] = [
    {},
    { causal: true, qoLens: [0, 4], seqLens: [5, 0] },
    { qoLens: Uint8Array.of(0, 0) },
    { qoLens: [-0, 4], seqLens: new Float64Array(2) },
    { customMask: GOOD_MASK, causal: true },
    { customMask: new Uint8Array(40) },
    { customMask: new Float32Array(40).fill(1) },
    { customMask: new Array(40).fill(-0) },
    { packedCustomMask: new Uint8Array(6).fill(255) },
    { packedCustomMask: new Uint8Array(new ArrayBuffer(20), 7, 6) },
    Object.fromEntries(
      ["causal", "customMask", "packedCustomMask", "qoLens", "seqLens"].map((name) => [
        name,
        undefined,
      ]),
    ),
  ];
  for (const options of good) await call(device, { options: options as Record<string, unknown> });
  await call(device, {}, true);
  await call(device, { v: [2, 5, 3, 16] });
}, BOTH);

onEachBackend("prefill refuses what is no tensor, and tensors of two devices", async (device) => {
  using q = device.empty(Q, "float32");
  using cache = device.empty(K, "float32");
  for (const bad of [undefined, null, 5, "q", [1, 2], new Float32Array(96), { ...q }]) {
    const tensor = bad as unknown as Tensor;
    const calls: readonly [string, () => unknown][] = [
      ["q", () => batchPrefillWithPaddedKvCache(tensor, cache, cache)],
      ["k", () => batchPrefillWithPaddedKvCache(q, tensor, cache)],
      ["v", () => singlePrefillWithKvCache(q, cache, tensor)],
    ];
    for (const [name, work] of calls) {
      await assertFails(`${name} is ${bad}`, work, "OptionError", name, /expected a tensor/);
    }
  }
  using other = await openDevice({ backend: "wasm" });
  using foreign = other.empty(K, "float32");
  for (const [name, k, v] of [["k", foreign, cache], ["v", cache, foreign]] as const) {
    const work = () => batchPrefillWithPaddedKvCache(q, k, v);
    await assertFails(name, work, "DeviceMismatchError", name, /got a tensor of another device/);
  }
}, BOTH);
