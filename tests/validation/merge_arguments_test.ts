/** Merges that do not fit: each is refused by its typed error, and leaves all as it was. */

import assert from "node:assert/strict";
import {
  type DType,
  mergeState,
  mergeStateInPlace,
  mergeStates,
  openDevice,
  type Tensor,
} from "@kvasir/attention";
import { type BackendName, gpuTest, onEachBackend, openGpuDevice } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";

const BOTH: readonly BackendName[] = ["wasm", "webgpu"];
const V = [3, 2, 8];
const S = [3, 2];

/** Shapes and dtypes of vA, sA, vB, sB where they differ from good ones. */
interface BadPair {
  readonly shapes?: Readonly<Partial<Record<number, readonly number[]>>>;
  readonly dtypes?: Readonly<Partial<Record<number, DType>>>;
  readonly kind: ErrorKind;
  /** Which of the four the error names. */
  readonly at: number;
  readonly message: RegExp;
}

const BAD_PAIRS: readonly BadPair[] = [
  { shapes: { 0: [3, 8] }, kind: "ShapeError", at: 0, message: /expected 3 dims, \[n, H, D\]/ },
  { shapes: { 0: [3, 2, 0], 2: [3, 2, 0] }, kind: "ShapeError", at: 0, message: /D of at least 1/ },
  { shapes: { 2: [2, 2, 8] }, kind: "ShapeError", at: 2, message: /got shape \[2, 2, 8\]/ },
  { shapes: { 1: [3, 3] }, kind: "ShapeError", at: 1, message: /one lse for each row and head/ },
  { shapes: { 3: [2, 3] }, kind: "ShapeError", at: 3, message: /expected \[3, 2\]/ },
  { dtypes: { 2: "float16" }, kind: "DTypeError", at: 2, message: /got float16/ },
  { dtypes: { 1: "float16" }, kind: "DTypeError", at: 1, message: /expected float32/ },
  { dtypes: { 3: "bfloat16" }, kind: "DTypeError", at: 3, message: /in base 2/ },
];

onEachBackend("mergeState() and mergeStateInPlace() refuse what does not fit", async (device) => {
  for (const { shapes = {}, dtypes = {}, kind, at, message } of BAD_PAIRS) {
    const tensors = [V, S, V, S].map((good, i) =>
      device.empty(shapes[i] ?? good, dtypes[i] ?? "float32")
    );
    const [a, b, c, d] = tensors;
    const names = ["vA", "sA", "vB", "sB"];
    const inPlaceNames = ["v", "s", "vOther", "sOther"];
    await assertFails(names[at], () => mergeState(a, b, c, d), kind, names[at], message);
    const inPlace = () => mergeStateInPlace(a, b, c, d);
    await assertFails(inPlaceNames[at], inPlace, kind, inPlaceNames[at], message);
    for (const tensor of tensors) tensor.destroy();
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 });
  }
}, BOTH);

onEachBackend("mergeStateInPlace() refuses bad masks and changes nothing", async (device) => {
  using v = device.tensor(new Float32Array(48).fill(2), V, "float32");
  using s = device.tensor(new Float32Array(6).fill(3), S, "float32");
  for (const mask of [[true], [true, false, 1], "yes", 5, new Uint8Array(3)]) {
    const options = { mask: mask as unknown as boolean[] };
    const work = () => mergeStateInPlace(v, s, v, s, options);
    await assertFails(String(mask), work, "OptionError", "options.mask");
  }
  const unknown = { masks: [] } as object;
  const work = () => mergeStateInPlace(v, s, v, s, unknown);
  await assertFails("masks", work, "OptionError", "options.masks", /does not know/);
  assert.deepEqual(new Set(await v.read()), new Set([2]));
  assert.deepEqual(new Set(await s.read()), new Set([3]));
}, BOTH);

onEachBackend("mergeStates() refuses what does not fit, and what is no tensor", async (device) => {
  using v = device.empty([3, 4, 2, 8], "float32");
  using flat = device.empty(V, "float32");
  using s = device.empty([3, 4, 2], "float32");
  using swapped = device.empty([3, 2, 4], "float32");
  const four = /expected 4 dims, \[n, S, H, D\]/;
  await assertFails("rank", () => mergeStates(flat, s), "ShapeError", "v", four);
  await assertFails("s", () => mergeStates(v, swapped), "ShapeError", "s", /expected \[3, 4, 2\]/);
  const none = undefined as unknown as Tensor;
  await assertFails("none", () => mergeStates(v, none), "OptionError", "s", /expected a tensor/);
  using other = await openDevice({ backend: "wasm" });
  using foreign = other.empty([3, 4, 2], "float32");
  const mixed = () => mergeStates(v, foreign);
  await assertFails("devices", mixed, "DeviceMismatchError", "s", /another device/);
}, BOTH);

onEachBackend("merges of nothing are answered", async (device) => {
  using noRows = device.empty([0, 4, 2, 8], "float16");
  using noSums = device.empty([0, 4, 2], "float32");
  const empty = await mergeStates(noRows, noSums);
  assert.deepEqual([empty.out.shape, empty.lse.shape], [[0, 2, 8], [0, 2]]);
  using noStates = device.empty([3, 0, 2, 8], "float16");
  using noStateSums = device.empty([3, 0, 2], "float32");
  const { out, lse } = await mergeStates(noStates, noStateSums);
  assert.deepEqual(new Set(await out.read()), new Set([0]));
  assert.deepEqual(new Set(await lse.read()), new Set([-Infinity]));
  for (const tensor of [empty.out, empty.lse, out, lse]) tensor.destroy();
}, BOTH);

gpuTest("mergeStateInPlace() refuses buffers that nothing may be copied to", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const borrow = (shape: number[], usage: number) => {
    const buffer = gpuDevice.createBuffer({ size: 256, usage: GPUBufferUsage.STORAGE | usage });
    return { buffer, tensor: device.tensorFromBuffer(buffer, shape, "float32") };
  };
  const { COPY_SRC, COPY_DST } = GPUBufferUsage;
  const v = borrow(V, COPY_SRC | COPY_DST);
  const s = borrow(S, COPY_SRC);
  using other = device.tensor(new Float32Array(48).fill(1), V, "float32");
  using sums = device.tensor(new Float32Array(6), S, "float32");
  const work = () => mergeStateInPlace(v.tensor, s.tensor, other, sums);
  await assertFails("s", work, "OptionError", "s", /expected usage COPY_DST/);
  assert.deepEqual(new Set(await v.tensor.read()), new Set([0]));
  for (const { buffer, tensor } of [v, s]) {
    tensor.destroy();
    buffer.destroy();
  }
});
