/** Updates and runs of paged calls that do not fit their plan: nothing runs, and the plan stays. */

import assert from "node:assert/strict";
import {
  BatchDecodeWithPagedKvCache,
  BatchPrefillWithPagedKvCache,
  type Device,
  type DType,
  openDevice,
  type PagedKv,
  type RunOptions,
  type Tensor,
} from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import {
  type BackendName,
  type DeviceTest,
  gpuTest,
  onEachBackend,
  openGpuDevice,
} from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";
import { countDispatches, countWork } from "../support/malformed.ts";
import { normals } from "../support/values.ts";

// Whether a call fits is found out before any kernel is chosen: two backends say it all.
const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

const SIZES = {
  numQoHeads: 6,
  numKvHeads: 3,
  headDim: 8,
  pageSize: 4,
  qDtype: "float32",
  kvDtype: "float16",
} as const;
/** 7, 0 and 4 tokens. */
const DECODE = { ...SIZES, indptr: [0, 2, 2, 3], indices: [4, 1, 0], lastPageLen: [3, 0, 4] };
/** 3, 1 and 5 queries. */
const PREFILL = {
  ...SIZES,
  qoIndptr: [0, 3, 4, 9],
  pagedKvIndptr: DECODE.indptr,
  pagedKvIndices: DECODE.indices,
  pagedKvLastPageLen: DECODE.lastPageLen,
};

/** A planned object with what its runs take. */
interface Call {
  readonly name: "decode" | "prefill";
  readonly rows: number;
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  run(q: Tensor, cache: PagedKv, options?: RunOptions): Promise<Tensor | object>;
  /** Plans by this object itself. */
  plan(plan: object): void;
  /** The plan in force. */
  readonly planned: object;
}

/** Runs `test` on decode and on prefill; afterwards the plan must give the same bits as before. */
function onBothCalls(test: (call: Call, device: Device) => Promise<void>): DeviceTest {
  return async (device) => {
    using decode = new BatchDecodeWithPagedKvCache(device);
    using prefill = new BatchPrefillWithPagedKvCache(device);
    using k = device.tensor(normals(5 * 96, 2), [5, 4, 3, 8], "float16");
    using v = device.tensor(normals(5 * 96, 3), [5, 4, 3, 8], "float16");
    for (const name of ["decode", "prefill"] as const) {
      const rows = name === "decode" ? 3 : 9;
      using q = device.tensor(normals(rows * 48, 1), [rows, 6, 8], "float32");
      const call: Call = {
        name,
        rows,
        q,
        k,
        v,
        run: (...args) => (name === "decode" ? decode : prefill).run(...args),
        plan: (plan) => (name === "decode" ? decode : prefill).plan(plan as never),
        planned: name === "decode" ? DECODE : PREFILL,
      };
      call.plan(call.planned);
      const read = async () => {
        using out = await call.run(q, [k, v]) as Tensor;
        return await out.read();
      };
      const before = await read();
      const held = device.report.memory;
      const dispatches = await countDispatches(device, () => test(call, device));
      assert.equal(dispatches, 0, `${name}: what failed ran`);
      assert.deepEqual(device.report.memory, held, `${name}: tensors are left`);
      assertSameBits(await read(), before, `${name}, afterwards`);
    }
  };
}

onEachBackend("updateLastPageLen() names the request, and lengths stay", async (device) => {
  using decode = new BatchDecodeWithPagedKvCache(device);
  using q = device.tensor(normals(3 * 48, 1), [3, 6, 8], "float32");
  using cache = device.tensor(normals(5 * 2 * 4 * 24, 2), [5, 2, 4, 3, 8], "float16");
  decode.plan(DECODE);
  decode.updateLastPageLen([2, 0, 1]);
  using before = await decode.run(q, cache);
  const cases: readonly [value: unknown, subject: string, RegExp][] = [
    ...[undefined, null, 3, "301", {}, { length: 3 }, new DataView(new ArrayBuffer(12))].map((
      value,
    ): [unknown, string, RegExp] => [value, "lastPageLen", /expected an array of numbers/]),
    ...[[], [3], [3, 0], [3, 0, 4, 1], new Int32Array(4), new Array(2 ** 32 - 1)].map((
      value,
    ): [unknown, string, RegExp] => [value, "lastPageLen", /numbers, expected 3, one a request/]),
    ...[0, -1, 5, 1.5, NaN, Infinity, "3", null, undefined, 1n, true, [3]].map((
      value,
    ): [unknown, string, RegExp] => [
      [3, 0, value],
      "lastPageLen[2]",
      /for request 2, expected an integer from 1 to 4, the page size/,
    ]),
    [[3, 5, 4], "lastPageLen[1]", /got 5 for request 1, expected an integer from 0 to 4/],
    [[3, -1, 4], "lastPageLen[1]", /got -1 for request 1/],
    // The first that is wrong is named, though those before fit.
    [[4, 4, 9], "lastPageLen[2]", /got 9 for request 2/],
  ];
  const work = await countWork(device, async () => {
    for (const [value, subject, message] of cases) {
      const update = () => decode.updateLastPageLen(value as number[]);
      await assertFails(`lengths ${typeof value}`, update, "OptionError", subject, message);
    }
  });
  assert.equal(work, 0);
  using after = await decode.run(q, cache);
  assertSameBits(await after.read(), await before.read(), "the lengths before");
  // A request without pages has no tokens, whatever its length says.
  decode.updateLastPageLen([2, 4, 1]);
  using same = await decode.run(q, cache);
  assertSameBits(await same.read(), await before.read(), "a request without pages");
}, BOTH);

onEachBackend(
  "paged run() refuses tensors, one by one",
  onBothCalls(async (call, device) => {
    const { q, k, v, rows, run } = call;
    const make = (shape: readonly number[], dtype: DType) => device.empty(shape, dtype);
    const cases: readonly [
      label: string,
      shape: readonly number[],
      DType,
      run: (tensor: Tensor) => Promise<unknown>,
      ErrorKind,
      subject: string,
      RegExp,
    ][] = [
      ...[[rows - 1, 6, 8], [rows + 1, 6, 8], [rows, 3, 8], [rows, 6, 4], [rows, 48]].map((
        shape,
      ): typeof cases[number] => [
        `q [${shape}]`,
        shape,
        "float32",
        (bad) => run(bad, [k, v]),
        "PlanError",
        "q",
        /by the plan\. Call plan\(\) again/,
      ]),
      [
        "q's dtype",
        q.shape,
        "float16",
        (bad) => run(bad, [k, v]),
        "PlanError",
        "q",
        /got float16, expected float32/,
      ],
      [
        "k's pages",
        [4, 4, 3, 8],
        "float16",
        (bad) => run(q, [bad, v]),
        "ShapeError",
        "kvCache[1]",
        /kvCache\[0\]'s shape/,
      ],
      [
        "v's heads",
        [5, 4, 6, 8],
        "float16",
        (bad) => run(q, [k, bad]),
        "ShapeError",
        "kvCache[1]",
        /kvCache\[0\]'s shape/,
      ],
      [
        "v's dtype",
        [5, 4, 3, 8],
        "bfloat16",
        (bad) => run(q, [k, bad]),
        "PlanError",
        "kvCache",
        /got vDtype "bfloat16", expected "float16", by the plan/,
      ],
      [
        "v's head dim",
        [5, 4, 3, 4],
        "float16",
        (bad) => run(q, [k, bad]),
        "PlanError",
        "kvCache",
        /headDimV 4, expected 8/,
      ],
      [
        "a page less",
        [4, 2, 4, 3, 8],
        "float16",
        (bad) => run(q, bad),
        "PlanError",
        "kvCache",
        /4 pages, of which request 0 has page 4, expected at least 5/,
      ],
      [
        "out's shape",
        [rows, 6, 4],
        "float32",
        (out) => run(q, [k, v], { out }),
        "PlanError",
        "out",
        /by the plan/,
      ],
      [
        "out's dtype",
        q.shape,
        "float16",
        (out) => run(q, [k, v], { out }),
        "PlanError",
        "out",
        /got float16, expected float32/,
      ],
      [
        "lse's shape",
        q.shape,
        "float32",
        (lse) => run(q, [k, v], { returnLse: true, lse }),
        "PlanError",
        "lse",
        /by the plan/,
      ],
      [
        "lse's dtype",
        [rows, 6],
        "float16",
        (lse) => run(q, [k, v], { returnLse: true, lse }),
        "PlanError",
        "lse",
        /got float16, expected float32/,
      ],
    ];
    for (const [label, shape, dtype, work, kind, subject, message] of cases) {
      using bad = make(shape, dtype);
      await assertFails(`${call.name}, ${label}`, () => work(bad), kind, subject, message);
    }
  }),
  BOTH,
);

/** Every place of a run where a tensor goes, with the name that errors give it. */
function places({ q, k, v, run, rows }: Call): readonly [
  name: string,
  shape: readonly number[],
  DType,
  (tensor: Tensor) => Promise<unknown>,
][] {
  return [
    ["q", q.shape, "float32", (bad) => run(bad, [k, v])],
    ["kvCache", [5, 2, 4, 3, 8], "float16", (bad) => run(q, bad)],
    ["kvCache[0]", k.shape, "float16", (bad) => run(q, [bad, v])],
    ["kvCache[1]", v.shape, "float16", (bad) => run(q, [k, bad])],
    ["out", q.shape, "float32", (out) => run(q, [k, v], { out })],
    ["lse", [rows, 6], "float32", (lse) => run(q, [k, v], { returnLse: true, lse })],
  ];
}

onEachBackend(
  "paged run() refuses destroyed tensors and those of other devices",
  onBothCalls(async (call, device) => {
    using other = await openDevice({ backend: "wasm" });
    for (const [name, shape, dtype, work] of places(call)) {
      const label = `${call.name}, ${name}`;
      const dead = device.empty(shape, dtype);
      dead.destroy();
      await assertFails(label, () => work(dead), "DestroyedError", name, /a destroyed tensor/);
      using foreign = other.empty(shape, dtype);
      const mixed = () => work(foreign);
      await assertFails(label, mixed, "DeviceMismatchError", name, /expected the plan's device/);
      for (const none of [null, 5, "q", {}, { ...call.q }]) {
        const bad = () => work(none as unknown as Tensor);
        await assertFails(`${label} ${none}`, bad, "OptionError", name, /expected a tensor/);
      }
    }
  }),
  BOTH,
);

onEachBackend(
  "paged run() refuses options and encoders that are none",
  onBothCalls(async (call, device) => {
    const { q, k, v, run } = call;
    for (const options of [null, 5, "NHD", () => ({})]) {
      const work = () => run(q, [k, v], options as never);
      await assertFails(`options ${options}`, work, "OptionError", "options", /an object/);
    }
    const encoders: unknown[] = [null, 1, "encoder", {}, [], { beginComputePass: 1 }];
    for (const encoder of encoders) {
      const work = () => run(q, [k, v], { encoder: encoder as GPUCommandEncoder });
      const message = device.backend === "wasm" ? /encoder on the WASM/ : /GPUCommandEncoder/;
      await assertFails(`${encoder}`, work, "OptionError", "options.encoder", message);
    }
    for (const returnLse of [0, 1, "true", {}]) {
      const work = () => run(q, [k, v], { returnLse } as unknown as RunOptions);
      await assertFails(`${returnLse}`, work, "OptionError", "options.returnLse", /true or false/);
    }
  }),
  BOTH,
);

onEachBackend(
  "errors of the caller's getters go through paged calls",
  onBothCalls(async (call) => {
    const { q, k, v, run, plan, planned } = call;
    const mine = new RangeError("the caller's own");
    const throwing = (good: object, name: string): object =>
      Object.defineProperty({ ...good }, name, {
        enumerable: true,
        get() {
          throw mine;
        },
      });
    for (const name of [...Object.keys(planned), "smScale", "windowLeft", "sinks"]) {
      assert.throws(() => plan(throwing(planned, name)), (error) => error === mine, name);
    }
    for (const name of ["returnLse", "out", "encoder"]) {
      const options = throwing({}, name) as RunOptions;
      await assert.rejects(run(q, [k, v], options), (error) => error === mine, name);
    }
    const named = call.name === "decode" ? "indices" : "pagedKvIndices";
    const hostile = new Proxy([4, 1, 0], {
      get(target, key) {
        if (key === "1") throw mine;
        return Reflect.get(target, key);
      },
    });
    assert.throws(() => plan({ ...planned, [named]: hostile }), (error) => error === mine);
    const shrinking: unknown[] = [4, 1, 0];
    Object.defineProperty(shrinking, 0, {
      get() {
        shrinking.length = 1;
        return 4;
      },
    });
    const shorter = () => plan({ ...planned, [named]: shrinking });
    await assertFails("an array that shrinks", shorter, "OptionError", `options.${named}[1]`);
  }),
  BOTH,
);

gpuTest("paged run() refuses results in a buffer that holds an operand", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const buffer = gpuDevice.createBuffer({ size: 1 << 15, usage: STORAGE | COPY_SRC | COPY_DST });
  let at = 0;
  const inBuffer = (shape: readonly number[], dtype: DType) => {
    const tensor = device.tensorFromBuffer(buffer, shape, dtype, at);
    at += 4096;
    return tensor;
  };
  await onBothCalls(async (call) => {
    at = 0;
    const { q, k, v, rows, run } = call;
    using query = inBuffer(q.shape, "float32");
    using cache = inBuffer([5, 2, 4, 3, 8], "float16");
    using part = inBuffer(k.shape, "float16");
    using out = inBuffer(q.shape, "float32");
    using lse = inBuffer([rows, 6], "float32");
    const cases: readonly [label: string, () => Promise<unknown>, subject: string, of: string][] = [
      ["out, q", () => run(query, [k, v], { out }), "out", "q"],
      ["out, cache", () => run(q, cache, { out }), "out", "kvCache"],
      ["out, k", () => run(q, [part, v], { out }), "out", "kvCache[0]"],
      ["out, v", () => run(q, [k, part], { out }), "out", "kvCache[1]"],
      ["lse, q", () => run(query, [k, v], { returnLse: true, lse }), "lse", "q"],
      ["lse, v", () => run(q, [k, part], { returnLse: true, lse }), "lse", "kvCache[1]"],
      ["lse, out", () => run(q, [k, v], { returnLse: true, out, lse }), "lse", "out"],
      ["out is q", () => run(q, [k, v], { out: q }), "out", "q"],
    ];
    for (const [label, work, subject, of] of cases) {
      const message = new RegExp(`the buffer of ${of.replace(/[[\]]/g, "\\$&")}, expected memory`);
      await assertFails(
        `${call.name}, ${label}`,
        work,
        "OptionError",
        `options.${subject}`,
        message,
      );
    }
  })(device, "webgpu");
  buffer.destroy();
});

onEachBackend(
  "a paged plan too large for the device leaves the one before",
  onBothCalls(async (call, device) => {
    const { plan, planned } = call;
    const heads = { numQoHeads: 65536, numKvHeads: 1, headDim: 65536 };
    const work = await countWork(device, async () => {
      const large = () => plan({ ...planned, ...heads });
      await assertFails(call.name, large, "LimitError", "q", /this device's max/);
    });
    assert.equal(work, 0);
  }),
  ["webgpu"],
);

gpuTest("paged calls on a GPU device that is lost", async () => {
  const gpuDevice = await openGpuDevice();
  const device = await openDevice({ gpuDevice });
  const decode = new BatchDecodeWithPagedKvCache(device);
  const prefill = new BatchPrefillWithPagedKvCache(device);
  const q = device.empty([3, 6, 8], "float32");
  const rows = device.empty([9, 6, 8], "float32");
  const cache = device.empty([5, 2, 4, 3, 8], "float16");
  const out = device.empty([3, 6, 8], "float32");
  decode.plan(DECODE);
  prefill.plan(PREFILL);
  await decode.run(q, cache, { out });
  gpuDevice.destroy();
  await gpuDevice.lost;
  const cases: readonly [string, () => unknown][] = [
    ["decode.run", () => decode.run(q, cache)],
    ["decode.run as before", () => decode.run(q, cache, { out })],
    ["decode.plan", () => decode.plan(DECODE)],
    ["decode.updateLastPageLen", () => decode.updateLastPageLen([1, 0, 1])],
    ["prefill.run", () => prefill.run(rows, cache)],
    ["prefill.plan", () => prefill.plan(PREFILL)],
  ];
  for (const [label, work] of cases) {
    await assertFails(label, work, "DeviceLostError", "device", /Open a new device/);
  }
  decode.destroy();
  prefill.destroy();
  device.destroy();
});
