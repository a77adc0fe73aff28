/** Tensors that cannot be: shapes, counts, bytes, dtypes and buffers that do not fit. */

import assert from "node:assert/strict";
import { decodeFp8, type DType, encodeFp8, type Fp8DType, openDevice } from "@kvasir/attention";
import { type BackendName, gpuTest, onEachBackend, openGpuDevice } from "../support/device.ts";
import { assertFails } from "../support/failures.ts";

const BOTH: readonly BackendName[] = ["wasm", "webgpu"];

const BAD_SHAPES: readonly (readonly [label: string, shape: unknown])[] = [
  ["NaN", [2, NaN]],
  ["negative", [-1]],
  ["two negatives", [-2, -3]],
  ["fractional", [1.5, 4]],
  ["infinite", [Infinity]],
  ["a string", ["6"]],
  ["null within", [6, null]],
  ["a hole", new Array(2)],
  ["true", [true, 6]],
  ["a number", 6],
  ["null", null],
  ["undefined", undefined],
  ["a text", "6"],
  ["an object", { length: 1, 0: 6 }],
];

onEachBackend("tensors refuse shapes that are none", async (device) => {
  for (const [label, shape] of BAD_SHAPES) {
    const dims = shape as number[];
    const makers = [
      () => device.tensor(new Float32Array(6), dims, "float32"),
      () => device.tensorFromBytes(new Uint8Array(24), dims, "float32"),
      () => device.empty(dims, "float32"),
    ];
    for (const make of makers) {
      await assertFails(label, make, "ShapeError", "shape", /expected an array of integers/);
    }
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 }, label);
  }
}, BOTH);

onEachBackend("tensor() refuses another number of values than the shape has", async (device) => {
  for (const [count, shape] of [[5, [2, 3]], [7, [2, 3]], [0, [1]], [1, [0]], [2, []]] as const) {
    const make = () => device.tensor(new Float32Array(count), shape, "float16");
    const message = new RegExp(`got ${count} values for shape`);
    await assertFails(`${count}`, make, "ShapeError", "shape", message);
  }
}, BOTH);

onEachBackend("tensor() refuses what holds no values", async (device) => {
  for (const values of [null, undefined, 5, "123", {}, { length: 1.5 }, () => 1]) {
    const make = () => device.tensor(values as unknown as number[], [3], "float32");
    await assertFails(`${values}`, make, "OptionError", "values", /expected an array/);
  }
}, BOTH);

onEachBackend(
  "tensorFromBytes() refuses another number of bytes, and other views",
  async (device) => {
    for (const [bytes, dtype] of [[11, "float32"], [5, "float16"], [4, "float8_e5m2"]] as const) {
      const make = () => device.tensorFromBytes(new Uint8Array(bytes), [3], dtype);
      await assertFails(dtype, make, "ShapeError", "shape", new RegExp(`got ${bytes} bytes`));
    }
    for (const bytes of [new Float32Array(3), new ArrayBuffer(12), [1, 2, 3], null]) {
      const make = () => device.tensorFromBytes(bytes as unknown as Uint8Array, [3], "float32");
      await assertFails(`${bytes}`, make, "OptionError", "bytes", /expected a Uint8Array/);
    }
  },
  BOTH,
);

onEachBackend("tensors refuse unknown dtypes", async (device) => {
  for (const dtype of ["float64", "fp16", "e4m3", "toString", "", null, undefined, 4]) {
    const name = dtype as DType;
    const makers = [
      () => device.tensor([1], [1], name),
      () => device.tensorFromBytes(new Uint8Array(4), [1], name),
      () => device.empty([1], name),
    ];
    const message = /expected one of float32, float16, bfloat16, float8_e4m3fn, float8_e5m2/;
    for (const make of makers) {
      await assertFails(`${dtype}`, make, "DTypeError", "dtype", message);
    }
  }
}, BOTH);

onEachBackend(
  "tensors beyond the device's limits are refused before anything runs",
  async (device) => {
    for (const shape of [[2 ** 40], [2 ** 31, 8], [65536, 65536]]) {
      const subject = `float32 [${shape.join(", ")}]`;
      const make = () => device.empty(shape, "float32");
      await assertFails(
        `${shape}`,
        make,
        "LimitError",
        subject,
        / bytes, expected (at most|less than) /,
      );
    }
    const make = () => device.empty([2 ** 30, 2 ** 30], "float32");
    await assertFails("2^60", make, "ShapeError", "shape", /2\^53/);
    assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 });
  },
  BOTH,
);

onEachBackend("tensorFromBuffer() is for WebGPU", async (device) => {
  const make = () => device.tensorFromBuffer({} as GPUBuffer, [1], "float32");
  await assertFails("wasm", make, "OptionError", "tensorFromBuffer", /WASM/);
}, ["wasm"]);

gpuTest("tensorFromBuffer() refuses buffers that do not fit", async () => {
  const gpuDevice = await openGpuDevice();
  using device = await openDevice({ gpuDevice });
  const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
  const usable = gpuDevice.createBuffer({ size: 1024, usage: STORAGE | COPY_SRC });
  const unusable = gpuDevice.createBuffer({ size: 1024, usage: COPY_DST });
  const refused = (label: string, make: () => unknown, subject: string, message: RegExp) =>
    assertFails(label, make, "OptionError", subject, message);
  for (const buffer of [null, undefined, {}, new Uint8Array(4)]) {
    const make = () => device.tensorFromBuffer(buffer as GPUBuffer, [4], "float32");
    await refused(`${buffer}`, make, "buffer", /expected a GPUBuffer/);
  }
  const usage = () => device.tensorFromBuffer(unusable, [4], "float32");
  await refused("usage", usage, "buffer", /STORAGE/);
  const size = () => device.tensorFromBuffer(usable, [257], "float32");
  await refused("size", size, "buffer", /1024 bytes/);
  for (const offset of [3, -256, NaN, 0.5, 2 ** 60]) {
    const make = () => device.tensorFromBuffer(usable, [4], "float32", offset);
    await refused(`offset ${offset}`, make, "byteOffset", /got/);
  }
  const beyond = () => device.tensorFromBuffer(usable, [200], "float32", 512);
  await refused("offset and size", beyond, "buffer", /at 512/);
  const shape = () => device.tensorFromBuffer(usable, [NaN], "float32");
  await assertFails("shape", shape, "ShapeError", "shape");
  assert.deepEqual(device.report.memory, { tensors: 0, bytes: 0 });
  gpuDevice.destroy();
});

Deno.test("encodeFp8() refuses what it cannot encode", async () => {
  const refused = (values: unknown, options?: unknown) => () =>
    encodeFp8(values as number[], "float8_e4m3fn", options as { saturate?: boolean });
  for (const values of [null, undefined, 5, "12", {}]) {
    await assertFails(`${values}`, refused(values), "OptionError", "values", /expected an array/);
  }
  for (const dtype of ["float16", "fp8", undefined]) {
    const encode = () => encodeFp8([1], dtype as Fp8DType);
    await assertFails(`${dtype}`, encode, "DTypeError", "dtype", /float8_e4m3fn.*float8_e5m2/);
  }
  const saturate = refused([1], { saturate: 1 });
  await assertFails("saturate", saturate, "OptionError", "options.saturate", /true or false/);
  const unknown = refused([1], { saturated: true });
  await assertFails("unknown", unknown, "OptionError", "options.saturated", /saturate, inputDtype/);
  await assertFails("null", refused([1], null), "OptionError", "options", /an object/);
  const dtype = refused([1], { inputDtype: "bfloat16" });
  await assertFails("inputDtype", dtype, "OptionError", "options.inputDtype", /float16/);
  const floats = refused(Float32Array.of(1), { inputDtype: "float16" });
  await assertFails("floats as halves", floats, "OptionError", "values", /Uint16Array/);
});

Deno.test("decodeFp8() refuses what it cannot decode", async () => {
  const refused = (codes: unknown, options?: unknown) => () =>
    decodeFp8(codes as Uint8Array, "float8_e5m2", options as { outDtype: "float32" });
  for (const codes of [[1, 2], new Uint16Array(2), null, "12"]) {
    await assertFails(`${codes}`, refused(codes), "OptionError", "codes", /a Uint8Array/);
  }
  const dtype = () => decodeFp8(new Uint8Array(1), "int8" as Fp8DType);
  await assertFails("dtype", dtype, "DTypeError", "dtype", /float8_e4m3fn/);
  const out = refused(new Uint8Array(1), { outDtype: "float64" });
  await assertFails("outDtype", out, "OptionError", "options.outDtype", /float32.*float16/);
  const unknown = refused(new Uint8Array(1), { saturate: true });
  await assertFails("unknown", unknown, "OptionError", "options.saturate", /outDtype/);
});
