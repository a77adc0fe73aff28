/** Options of decode that do not fit: each is refused by its typed error before anything runs. */

import assert from "node:assert/strict";
import {
  batchDecodeWithPaddedKvCache,
  type Device,
  type DType,
  openDevice,
  type PaddedDecodeOptions,
  singleDecodeWithKvCache,
} from "@kvasir/attention";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";

// Whether a call fits is found out before any kernel is chosen: two backends say it all.
const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

/** q [2, 6, 8] over k [2, 5, 3, 8]. */
const SIZES = { batch: 2, qoHeads: 6, length: 5, kvHeads: 3, headDim: 8 };

interface BadOption {
  readonly label: string;
  readonly options: Record<string, unknown>;
  readonly subject: string;
  readonly message: RegExp;
}

/** Each value of one option, refused under its name. */
function bad(name: string, message: RegExp, values: readonly unknown[]): BadOption[] {
  return values.map((value) => ({
    label: `${name} ${typeof value === "object" ? JSON.stringify(value) : String(value)}`,
    options: { [name]: value },
    subject: `options.${name}`,
    message,
  }));
}

const NO_NUMBERS = ["1", true, {}, [], () => 1, 1n, Symbol("one")];
const NOT_FINITE = [NaN, Infinity, -Infinity, 1e39, -1e39];

const BAD_OPTIONS: readonly BadOption[] = [
  ...["kvlayout", "kv_layout", "sm_scale", "causal", "logitssoftcap", "allowFp16QkReduction"].map(
    (name) => ({
      label: `the unknown option ${name}`,
      options: { [name]: "NHD" },
      subject: `options.${name}`,
      message: /does not know, expected one of kvLayout, posEncodingMode, .*Check the spelling/,
    }),
  ),
  ...bad("kvLayout", /expected "NHD" or "HND"/, ["nhd", "NDH", "", 1, {}, ["NHD"]]),
  ...bad("posEncodingMode", /expected "NONE", "ROPE_LLAMA" or "ALIBI"/, [
    "none",
    "ROPE",
    "rope_llama",
    0,
    true,
  ]),
  ...bad("smScale", /expected a number that is finite in float32/, [...NO_NUMBERS, ...NOT_FINITE]),
  ...["ropeScale", "ropeTheta"].flatMap((name) => [
    ...bad(name, /expected a number/, [...NO_NUMBERS, ...NOT_FINITE]),
    ...bad(name, /above 0/, [0, -0, -1, 1e-39, 5e-324]),
  ]),
  ...bad("logitsSoftCap", /expected a number/, [...NO_NUMBERS, ...NOT_FINITE]),
  ...bad("logitsSoftCap", /0, or a number above 0/, [-1, -1e-30, 1e-39, 5e-324]),
  ...bad("windowLeft", /expected an integer of at least -1/, [
    -2,
    0.5,
    NaN,
    Infinity,
    2 ** 53,
    ...NO_NUMBERS,
  ]),
  ...["qScale", "kScale", "vScale"].flatMap((name) => [
    ...bad(name, /expected a number that is finite in float32/, NOT_FINITE),
    ...bad(name, /expected an array of numbers.*one for each/, ["1", true, {}, { length: 3 }, 1n]),
    ...bad(name, /expected an array of numbers/, [new DataView(new ArrayBuffer(24)), new Set([1])]),
    ...bad(name, /numbers, expected [63], one for each of the/, [[], [1], [1, 2], [1, 2, 3, 4]]),
  ]),
  ...bad("qScale", /6, one for each of the query heads/, [[1, 2, 3], new Float32Array(7)]),
  ...bad("kScale", /3, one for each of the KV heads/, [[1, 2, 3, 4, 5, 6], new Float32Array(2)]),
  ...bad("sinks", /expected an array of numbers/, [0, 1, "1", true, {}, null]),
  ...bad("sinks", /6, one for each of the query heads/, [[], [1, 2, 3], new Float32Array(5)]),
  ...["qScale", "sinks"].flatMap((name) =>
    [NaN, Infinity, -Infinity, 1e39, "1", null, undefined, [], 1n].map((value) => ({
      label: `${name} with ${String(value)}`,
      options: { [name]: [0, 0, value, 0, 0, 0] },
      subject: `options.${name}[2]`,
      message: /expected a number that is finite in float32/,
    }))
  ),
  ...bad("outDtype", /expected "float32", "float16"/, ["float64", "fp16", "FLOAT32", 16, null, []]),
  ...bad("returnLse", /expected true or false/, [1, 0, "true", {}]),
  ...bad("lseBase", /expected "log2" or "ln"/, ["log", "e", 2, true, {}]),
  {
    label: "scales whose product overflows",
    options: { smScale: 1e20, qScale: 1e20 },
    subject: "options.smScale",
    message: /a product of smScale, qScale and kScale of 1\S*e\+40/,
  },
];

/** Makes the tensors of a call, runs it and frees the tensors. */
async function call(
  device: Device,
  options: Record<string, unknown>,
  { single = false, headDim = SIZES.headDim, qDtype = "float32" as DType } = {},
): Promise<{ dtype: DType; lse: boolean }> {
  const { batch, qoHeads, length, kvHeads } = SIZES;
  const batches = single ? [] : [batch];
  using q = device.empty([...batches, qoHeads, headDim], qDtype);
  using k = device.empty([...batches, length, kvHeads, headDim], "float32");
  const decode = single ? singleDecodeWithKvCache : batchDecodeWithPaddedKvCache;
  const result = await decode(q, k, k, options as PaddedDecodeOptions);
  const { out, lse } = "out" in result ? result : { out: result, lse: null };
  out.destroy();
  lse?.destroy();
  return { dtype: out.dtype, lse: lse !== null };
}

onEachBackend("both calls refuse unknown and bad options", async (device) => {
  for (const single of [false, true]) {
    for (const { label, options, subject, message } of BAD_OPTIONS) {
      const work = () => call(device, options, { single });
      await assertFails(label, work, "OptionError", subject, message);
    }
    for (const options of [null, 5, "NHD", true]) {
      const work = () => call(device, options as unknown as Record<string, unknown>, { single });
      await assertFails(`options ${options}`, work, "OptionError", "options", /an object/);
    }
  }
  await call(device, {});
}, BOTH);

onEachBackend(
  "options are taken at the ends of their ranges, and undefined is the default",
  async (device) => {
    const good: readonly Record<string, unknown>[] = [
      { windowLeft: -1 },
      { windowLeft: 0 },
      { windowLeft: 2 ** 53 - 1 },
      { logitsSoftCap: 0 },
      { logitsSoftCap: 2 ** -126 },
      { logitsSoftCap: 3e38 },
      { ropeScale: 2 ** -126, ropeTheta: 3e38, posEncodingMode: "ROPE_LLAMA" },
      { smScale: 0 },
      { qScale: -0 },
      { kScale: Float64Array.of(1, 2, 3), qScale: new Uint8Array(6), sinks: new Int16Array(6) },
      { sinks: [-3e38, 3e38, 0, -0, 1e-40, 1] },
      Object.fromEntries(
        ["kvLayout", "posEncodingMode", "smScale", "qScale", "sinks", "windowLeft", "logitsSoftCap"]
          .concat([
            "outDtype",
            "returnLse",
            "lseBase",
            "seqLens",
            "ropeScale",
            "ropeTheta",
            "vScale",
          ])
          .map((name) => [name, undefined]),
      ),
    ];
    for (const options of good) await call(device, options);
  },
  BOTH,
);

onEachBackend("the output's dtype is q's, or float16, or what is asked for", async (device) => {
  const dtypeOf = async (qDtype: DType, outDtype?: DType) =>
    (await call(device, { outDtype }, { qDtype })).dtype;
  for (const dtype of ["float32", "float16", "bfloat16"] as const) {
    assert.equal(await dtypeOf(dtype), dtype);
  }
  assert.equal(await dtypeOf("float8_e4m3fn"), "float16");
  assert.equal(await dtypeOf("float8_e5m2"), "float16");
  assert.equal(await dtypeOf("float32", "float8_e5m2"), "float8_e5m2");
  assert.equal(await dtypeOf("float8_e4m3fn", "float8_e4m3fn"), "float8_e4m3fn");
  assert.equal((await call(device, { returnLse: true })).lse, true);
}, BOTH);

onEachBackend("rotary encoding wants an even head dim", async (device) => {
  const options = { posEncodingMode: "ROPE_LLAMA" };
  for (const headDim of [1, 3, 65]) {
    const work = () => call(device, options, { headDim });
    const message = new RegExp(`head dim of ${headDim}, expected an even head dim`);
    await assertFails(`D ${headDim}`, work, "OptionError", "options.posEncodingMode", message);
  }
}, BOTH);

interface BadTensor {
  readonly label: string;
  readonly shape: readonly number[];
  readonly dtype?: DType;
  readonly values?: readonly number[];
  readonly kind: ErrorKind;
  readonly subject: string;
  readonly message: RegExp;
}

const BAD_TENSORS: readonly BadTensor[] = [
  {
    label: "dtype",
    shape: [6],
    dtype: "float16",
    kind: "DTypeError",
    subject: "options.sinks",
    message: /float16.*float32/,
  },
  {
    label: "rank",
    shape: [2, 3],
    kind: "ShapeError",
    subject: "options.sinks",
    message: /\[2, 3\]/,
  },
  { label: "no rank", shape: [], kind: "ShapeError", subject: "options.sinks", message: /one dim/ },
  {
    label: "length",
    shape: [3],
    kind: "OptionError",
    subject: "options.sinks",
    message: /3 numbers, expected 6/,
  },
  {
    label: "none",
    shape: [0],
    kind: "OptionError",
    subject: "options.sinks",
    message: /0 numbers/,
  },
  {
    label: "a value",
    shape: [6],
    values: [0, 1, 2, 3, NaN, 5],
    kind: "OptionError",
    subject: "options.sinks[4]",
    message: /got NaN/,
  },
];

onEachBackend(
  "tensors for options must be float32, one number a head, and alive",
  async (device) => {
    for (const { label, shape, dtype = "float32", values, kind, subject, message } of BAD_TENSORS) {
      using sinks = values ? device.tensor(values, shape, dtype) : device.empty(shape, dtype);
      await assertFails(label, () => call(device, { sinks }), kind, subject, message);
    }
    using other = await openDevice({ backend: "wasm" });
    using foreign = other.empty([3], "float32");
    const mixed = () => call(device, { kScale: foreign });
    const message = /got a tensor of another device/;
    await assertFails("foreign", mixed, "DeviceMismatchError", "options.kScale", message);
    const dead = device.empty([3], "float32");
    dead.destroy();
    const late = () => call(device, { vScale: dead });
    await assertFails("destroyed", late, "DestroyedError", "options.vScale", /a destroyed tensor/);
  },
  BOTH,
);

onEachBackend(
  "what else is wrong with a call is found before its tensors are read",
  async (device) => {
    using sinks = device.tensor([NaN, 0, 0, 0, 0, 0], [6], "float32");
    const work = () => call(device, { sinks, windowLeft: -5 });
    await assertFails("window", work, "OptionError", "options.windowLeft", /at least -1/);
  },
  BOTH,
);
