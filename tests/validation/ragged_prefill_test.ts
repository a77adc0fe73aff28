/** Plans of ragged prefill that do not fit, and runs that do not fit their plan. */

import assert from "node:assert/strict";
import {
  BatchPrefillWithRaggedKvCache,
  type Device,
  type DType,
  openDevice,
  type RaggedPrefillPlan,
  type RunOptions,
  type Tensor,
} from "@kvasir/attention";
import { type BackendName, gpuTest, onEachBackend, openGpuDevice } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";

// Whether a call fits is found out before any kernel is chosen: two backends say it all.
const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

/** 4 and 5 queries over 7 and 13 keys. */
const PLAN = {
  qoIndptr: [0, 4, 9],
  kvIndptr: [0, 7, 20],
  numQoHeads: 6,
  numKvHeads: 3,
  headDim: 8,
  qDtype: "float32",
  kvDtype: "float16",
} as const satisfies RaggedPrefillPlan;

interface BadPlan {
  readonly label: string;
  readonly plan: Record<string, unknown>;
  readonly subject: string;
  readonly message: RegExp;
}

function bad(
  name: string,
  message: RegExp,
  values: readonly unknown[],
  subject = `options.${name}`,
): BadPlan[] {
  return values.map((value) => ({
    label: `${name} ${Array.isArray(value) ? `[${value.map(String)}]` : String(value)}`,
    plan: { [name]: value },
    subject,
    message,
  }));
}

const SIZES = ["numQoHeads", "numKvHeads", "headDim", "headDimV"];
const NO_DTYPES = ["float64", "fp16", "", 16, null, {}, undefined];
const MASK = 4 * 7 + 5 * 13;

const BAD_PLANS: readonly BadPlan[] = [
  ...["kvLayout", "returnLse", "pageSize", "qo_indptr", "seqLens", "out"].map((name) => ({
    label: `the unknown ${name}`,
    plan: { [name]: 1 },
    subject: `options.${name}`,
    message: /does not know, expected one of qoIndptr, kvIndptr, /,
  })),
  ...SIZES.flatMap((name) => [
    ...bad(name, /expected an integer of at least 1/, [0, -1, 1.5, NaN, Infinity, "6", {}, [6]]),
    ...bad(name, /expected an integer from 1 to 65536/, [65537, 2 ** 40]),
  ]),
  ...["numQoHeads", "numKvHeads", "headDim"].flatMap((name) =>
    bad(name, /expected an integer of at least 1/, [undefined, null])
  ),
  ...bad("numQoHeads", /over 3 KV heads/, [1, 2, 4, 7]),
  ...bad("qDtype", /expected "float32", "float16"/, NO_DTYPES),
  ...bad("kvDtype", /expected "float32", "float16"/, NO_DTYPES),
  ...["qoIndptr", "kvIndptr"].flatMap((name) => [
    ...bad(name, /expected an array of numbers/, [undefined, null, 9, "049", {}, { length: 3 }]),
    ...bad(name, /no entries/, [[], new Int32Array(0)]),
    ...[1, -1, 0.5, NaN, "0", null].flatMap((first) =>
      bad(name, /for the beginning of request 0, expected 0/, [[first, 4, 9]], `options.${name}[0]`)
    ),
    ...[3, -1, 4.5, NaN, Infinity, "9", null, undefined, 2 ** 31, 9n].flatMap((last) =>
      bad(
        name,
        /for the end of request 1, expected an integer from 4, where it begins, to 2147483647/,
        [[0, 4, last]],
        `options.${name}[2]`,
      )
    ),
  ]),
  ...bad("kvIndptr", /entries, expected 3, as many as qoIndptr has/, [[0], [0, 7], [0, 7, 8, 20]]),
  ...bad("causal", /expected true or false/, [0, 1, "true", {}]),
  ...bad("customMask", /expected an array of booleans/, [true, null, "1".repeat(MASK)]),
  ...bad("customMask", /expected 93, for masks of 4 x 7, 5 x 13/, [
    [],
    new Array(MASK - 1).fill(true),
    new Array(9 * 20).fill(true),
  ]),
  // 28 and 65 bits are 4 and 9 bytes.
  ...bad("packedCustomMask", /expected 13, for masks of 4 x 7, 5 x 13/, [
    new Uint8Array(12),
    new Uint8Array(14),
    new Uint8Array(MASK),
  ]),
  ...bad("customMask", /expected true, false, 1 or 0/, [
    Array.from({ length: MASK }, (_, i) => i === 80 ? 2 : 1),
  ], "options.customMask[80]"),
  ...bad("smScale", /expected a number/, [NaN, "1", {}]),
  ...bad("windowLeft", /at least -1/, [-2, 0.5]),
  ...bad("sinks", /6, one for each of the query heads/, [[1], new Float32Array(3)]),
  ...bad("kScale", /3, one for each of the KV heads/, [[1], new Float32Array(6)]),
  ...bad("outDtype", /expected "float32", "float16"/, ["float64", null]),
  ...bad("posEncodingMode", /"NONE", "ROPE_LLAMA" or "ALIBI"/, ["rope"]),
  {
    label: "rotary encoding of an odd head dim",
    plan: { posEncodingMode: "ROPE_LLAMA", headDim: 7 },
    subject: "options.posEncodingMode",
    message: /an even head dim/,
  },
];

onEachBackend("plan() refuses what does not fit, and the old plan stays", async (device) => {
  const prefill = new BatchPrefillWithRaggedKvCache(device);
  const plan = (changes: Record<string, unknown>) =>
    prefill.plan({ ...PLAN, ...changes } as RaggedPrefillPlan);
  for (const { label, plan: changes, subject, message } of BAD_PLANS) {
    await assertFails(label, () => plan(changes), "OptionError", subject, message);
  }
  for (const options of [null, undefined, 5, "NHD", true]) {
    const work = () => prefill.plan(options as never);
    await assertFails(`plan ${options}`, work, "OptionError", "options", /an object/);
  }
  using sinks = device.empty([6], "float32");
  const withTensor = () => plan({ sinks });
  await assertFails("a tensor", withTensor, "OptionError", "options.sinks", /an array of numbers/);
  // None of them was taken.
  await assertFails("run", () => run(device, prefill), "PlanError", "run", /got no plan/);
  plan({});
  const failed = () => plan({ headDim: 0 });
  await assertFails("another", failed, "OptionError", "options.headDim", /at least 1/);
  await run(device, prefill);
}, BOTH);

interface BadRun {
  readonly label: string;
  readonly q?: readonly number[];
  readonly k?: readonly number[];
  readonly v?: readonly number[];
  readonly qDtype?: DType;
  readonly kDtype?: DType;
  readonly vDtype?: DType;
}

/** Makes the tensors of a run, runs it and frees the tensors. */
async function run(
  device: Device,
  prefill: BatchPrefillWithRaggedKvCache,
  bad: Partial<BadRun> = {},
  options?: RunOptions & { returnLse?: false },
): Promise<void> {
  using q = device.empty(bad.q ?? [9, 6, 8], bad.qDtype ?? "float32");
  using k = device.empty(bad.k ?? [20, 3, 8], bad.kDtype ?? "float16");
  using v = device.empty(bad.v ?? [20, 3, 8], bad.vDtype ?? "float16");
  const out = await prefill.run(q, k, v, options);
  out.destroy();
}

onEachBackend("run() refuses tensors that the plan does not fit", async (device) => {
  const prefill = new BatchPrefillWithRaggedKvCache(device, { kvLayout: "NHD" });
  await assertFails("no plan", () => run(device, prefill), "PlanError", "run", /got no plan/);
  prefill.plan(PLAN);
  const cases: readonly (BadRun & { subject: string; message: RegExp })[] = [
    ...[[8, 6, 8], [10, 6, 8], [9, 3, 8], [9, 6, 16], [9, 48], [1, 9, 6, 8], [432]].map((q) => ({
      label: `q [${q}]`,
      q,
      subject: "q",
      message: /expected \[9, 6, 8\], by the plan/,
    })),
    ...[[19, 3, 8], [21, 3, 8], [3, 20, 8], [20, 6, 8], [20, 3, 4], [20, 24]].flatMap((shape) =>
      ["k", "v"].map((name) => ({
        label: `${name} [${shape}]`,
        [name]: shape,
        subject: name,
        message: /expected \[20, 3, 8\], by the plan/,
      }))
    ),
    { label: "q's dtype", qDtype: "float16", subject: "q", message: /float16, expected float32/ },
    { label: "k's dtype", kDtype: "bfloat16", subject: "k", message: /expected float16/ },
    { label: "v's dtype", vDtype: "float8_e5m2", subject: "v", message: /expected float16/ },
  ];
  for (const bad of cases) {
    const work = () => run(device, prefill, bad);
    await assertFails(bad.label, work, "PlanError", bad.subject, bad.message);
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 }, bad.label);
  }
  prefill.plan({ ...PLAN, headDimV: 16 });
  const sameDim = () => run(device, prefill);
  await assertFails("v's head dim", sameDim, "PlanError", "v", /expected \[20, 3, 16\]/);
  const swapped = new BatchPrefillWithRaggedKvCache(device, { kvLayout: "HND" });
  swapped.plan(PLAN);
  const nhd = () => run(device, swapped);
  await assertFails("NHD for HND", nhd, "PlanError", "k", /expected \[3, 20, 8\], by the plan/);
  await run(device, swapped, { k: [3, 20, 8], v: [3, 20, 8] });
}, BOTH);

onEachBackend("run() refuses bad options and results", async (device) => {
  const prefill = new BatchPrefillWithRaggedKvCache(device);
  prefill.plan({ ...PLAN, kvDtype: "float32", kvIndptr: [0, 4, 9], numKvHeads: 6 });
  using q = device.empty([9, 6, 8], "float32");
  using k = device.empty([9, 6, 8], "float32");
  using lse = device.empty([9, 6], "float32");
  using small = device.empty([9, 6], "float32");
  using half = device.empty([9, 6, 8], "float16");
  const cases: readonly [label: string, object, kind: ErrorKind, subject: string, RegExp][] = [
    ["an unknown option", { stream: 1 }, "OptionError", "options.stream", /returnLse, out, lse/],
    [
      "no encoder",
      { encoder: 1 },
      "OptionError",
      "options.encoder",
      /GPUCommandEncoder|WASM backend/,
    ],
    ["no boolean", { returnLse: 1 }, "OptionError", "options.returnLse", /true or false/],
    ["lse unasked", { lse }, "OptionError", "options.lse", /expected returnLse: true/],
    ["null", { out: null }, "OptionError", "out", /expected a tensor/],
    ["zero", { out: 0 }, "OptionError", "out", /expected a tensor/],
    ["no tensor", { returnLse: true, lse: [1] }, "OptionError", "lse", /expected a tensor/],
    ["out's shape", { out: small }, "PlanError", "out", /expected \[9, 6, 8\], by the plan/],
    ["out's dtype", { out: half }, "PlanError", "out", /float16, expected float32, by the plan/],
    ["lse's shape", { returnLse: true, lse: q }, "PlanError", "lse", /\[9, 6\], by the plan/],
    ["out is q", { out: q }, "OptionError", "options.out", /the tensor or the buffer of q/],
    ["out is k", { out: k }, "OptionError", "options.out", /the tensor or the buffer of k/],
  ];
  for (const [label, options, kind, subject, message] of cases) {
    const work = () => prefill.run(q, k, k, options as RunOptions);
    await assertFails(label, work, kind, subject, message);
  }
  for (const options of [null, 5, "NHD"]) {
    const work = () => prefill.run(q, k, k, options as never);
    await assertFails(`options ${options}`, work, "OptionError", "options", /an object/);
  }
  for (const bad of [undefined, null, 5, [1, 2]]) {
    const work = () => prefill.run(q, bad as unknown as Tensor, k);
    await assertFails(`k is ${bad}`, work, "OptionError", "k", /expected a tensor/);
  }
  const dead = device.empty([9, 6, 8], "float32");
  dead.destroy();
  for (
    const [label, work] of [
      ["v", () => prefill.run(q, k, dead)],
      ["out", () => prefill.run(q, k, k, { out: dead })],
    ] as const
  ) {
    await assertFails(label, work, "DestroyedError", label, /a destroyed tensor/);
  }
  (await prefill.run(q, k, k)).destroy();
}, BOTH);

onEachBackend("tensors of a run must be of the plan's device", async (device) => {
  using other = await openDevice({ backend: "wasm" });
  using foreign = other.empty([9, 6, 8], "float32");
  using q = device.empty([9, 6, 8], "float32");
  const prefill = new BatchPrefillWithRaggedKvCache(device);
  prefill.plan({ ...PLAN, kvDtype: "float32", kvIndptr: [0, 4, 9], numKvHeads: 6 });
  const cases: readonly [name: string, work: () => unknown][] = [
    ["q", () => prefill.run(foreign, q, q)],
    ["k", () => prefill.run(q, foreign, q)],
    ["out", () => prefill.run(q, q, q, { out: foreign })],
    ["q", () => prefill.run(foreign, foreign, foreign)],
  ];
  for (const [name, work] of cases) {
    await assertFails(name, work, "DeviceMismatchError", name, /expected the plan's device/);
  }
}, BOTH);

onEachBackend("the constructor refuses what is no device, and bad options", async (device) => {
  for (const bad of [undefined, null, 5, "webgpu", {}, { ...device }]) {
    const work = () => new BatchPrefillWithRaggedKvCache(bad as unknown as Device);
    await assertFails(`device ${bad}`, work, "OptionError", "device", /expected a device/);
  }
  const make = (options: unknown) => () =>
    new BatchPrefillWithRaggedKvCache(device, options as { kvLayout?: "NHD" });
  const layout = make({ kvLayout: "nhd" });
  await assertFails("layout", layout, "OptionError", "options.kvLayout", /"NHD" or "HND"/);
  const unknown = make({ causal: true });
  await assertFails("unknown", unknown, "OptionError", "options.causal", /does not know/);
  await assertFails("null", make(null), "OptionError", "options", /an object/);
}, BOTH);

gpuTest("run() refuses results in a buffer that holds an operand", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const { STORAGE, COPY_SRC } = GPUBufferUsage;
  const buffer = gpuDevice.createBuffer({ size: 8192, usage: STORAGE | COPY_SRC });
  using q = device.tensorFromBuffer(buffer, [9, 6, 8], "float32");
  using out = device.tensorFromBuffer(buffer, [9, 6, 8], "float32", 4096);
  using k = device.empty([9, 6, 8], "float32");
  const prefill = new BatchPrefillWithRaggedKvCache(device);
  prefill.plan({ ...PLAN, kvDtype: "float32", kvIndptr: [0, 4, 9], numKvHeads: 6 });
  const work = () => prefill.run(q, k, k, { out });
  await assertFails("one buffer", work, "OptionError", "options.out", /the buffer of q/);
  buffer.destroy();
});
