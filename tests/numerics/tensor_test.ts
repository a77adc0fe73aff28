/** Tensors keep what they are given: rounding, bytes, sizes and offsets. */

import assert from "node:assert/strict";
import type { DType } from "@kvasir/attention";
import { assertSameBits } from "../support/bits.ts";
import { onEachBackend } from "../support/device.ts";
import { store } from "../support/storage.ts";
import { nextFloat32, normals, randomBits } from "../support/values.ts";

const DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];
const BYTES = { float32: 4, float16: 2, bfloat16: 2, float8_e4m3fn: 1, float8_e5m2: 1 } as const;

/** Normals, random exponents without NaN (whose bits are free), and values next to ties. */
function hardValues(): Float32Array {
  const random = randomBits(3000, 11).filter((x) => !Number.isNaN(x));
  const ties = [1 + 2 ** -9, 1 + 2 ** -11, 1 + 2 ** -12, 65519, 65520, 2 ** -25, 3 * 2 ** -25];
  const around = ties.flatMap((x) => [-1, 0, 1].map((steps) => nextFloat32(x, steps)));
  return Float32Array.from([...normals(3000, 12), ...random, ...around, 0, -0]);
}

onEachBackend("tensor() rounds a Float32Array once, to nearest even", async (device) => {
  const values = hardValues();
  for (const dtype of DTYPES) {
    const expected = store(values, dtype);
    using tensor = device.tensor(values, [values.length], dtype);
    assert.deepEqual(await tensor.readBytes(), expected.bytes, dtype);
    assertSameBits(await tensor.read(), expected.values, dtype);
  }
});

onEachBackend("tensor() rounds JavaScript numbers once", async (device) => {
  // Next to a tie by less than float32 can tell.
  const nearTies = {
    float32: 1 + 2 ** -24 + 2 ** -40,
    float16: 1 + 2 ** -11 + 2 ** -40,
    bfloat16: 1 + 2 ** -8 + 2 ** -40,
    float8_e4m3fn: 1 + 2 ** -4 + 2 ** -40,
    float8_e5m2: 1 + 2 ** -3 + 2 ** -40,
  };
  for (const dtype of DTYPES) {
    const x = nearTies[dtype];
    for (const values of [[x, -x, 2 - x], Float64Array.of(x, -x, 2 - x)]) {
      using tensor = device.tensor(values, [3], dtype);
      assertSameBits(await tensor.read(), store(Array.from(values), dtype).values, dtype);
    }
  }
});

onEachBackend("tensor() saturates FP8 and lets halves overflow", async (device) => {
  const expected = { float16: Infinity, float8_e4m3fn: 448, float8_e5m2: 57344 };
  for (const [dtype, largest] of Object.entries(expected)) {
    using tensor = device.tensor([1e6, -1e6], [2], dtype as DType);
    assert.deepEqual([...await tensor.read()], [largest, -largest]);
  }
});

onEachBackend("tensor() keeps NaN as NaN", async (device) => {
  for (const dtype of DTYPES) {
    using tensor = device.tensor([NaN, 1, NaN], [3], dtype);
    assert.deepEqual([...await tensor.read()], [NaN, 1, NaN], dtype);
  }
});

onEachBackend(
  "tensorFromBytes() and readBytes() keep every byte, at any length",
  async (device) => {
    const random = new Uint8Array(randomBits(64, 13).buffer);
    for (const dtype of DTYPES) {
      const size = BYTES[dtype];
      for (let count = 0; count <= 33; count++) {
        // From the middle of a buffer, so that only the view's own bytes may count.
        const bytes = random.subarray(size, size + count * size);
        using tensor = device.tensorFromBytes(bytes, [count], dtype);
        assert.deepEqual(await tensor.readBytes(), bytes.slice(), `${count} of ${dtype}`);
      }
    }
  },
);

onEachBackend("tensors copy what they are made of", async (device) => {
  const values = Float32Array.of(1, 2, 3, 4);
  const bytes = Uint8Array.of(0x38, 0x40);
  using a = device.tensor(values, [4], "float32");
  using b = device.tensorFromBytes(bytes, [2], "float8_e4m3fn");
  values.fill(9);
  bytes.fill(9);
  assert.deepEqual([...await a.read()], [1, 2, 3, 4]);
  assert.deepEqual([...await b.read()], [1, 2]);
  (await a.read()).fill(7);
  assert.deepEqual([...await a.read()], [1, 2, 3, 4]);
});

onEachBackend("empty() is zero, also where another tensor was", async (device) => {
  for (const dtype of DTYPES) {
    device.tensor(new Float32Array(1000).fill(3), [1000], dtype).destroy();
    using tensor = device.empty([10, 100], dtype);
    assert.deepEqual([...await tensor.readBytes()], new Array(1000 * BYTES[dtype]).fill(0));
  }
});

onEachBackend("a tensor knows its shape, dtype and device", (device) => {
  const shape = [2, 3];
  using tensor = device.empty(shape, "float16");
  shape[0] = 7;
  assert.deepEqual(tensor.shape, [2, 3]);
  assert.equal(tensor.dtype, "float16");
  assert.equal(tensor.device, device);
  assert.equal(tensor.buffer === null, device.backend === "wasm");
  assert.deepEqual(device.report.memory, { tensors: 1, bytes: 12 });
  return Promise.resolve();
});

onEachBackend("many tensors at once keep apart", async (device) => {
  const tensors = Array.from({ length: 200 }, (_, i) => {
    const count = 1 + (i * 37) % 500;
    return device.tensor(new Float32Array(count).fill(i), [count], "float16");
  });
  // Every other one goes, and new ones take the room.
  for (let i = 0; i < 200; i += 2) {
    tensors[i].destroy();
    tensors[i] = device.tensor(new Float32Array(300).fill(i), [300], "float32");
  }
  for (const [i, tensor] of tensors.entries()) {
    assert.ok((await tensor.read()).every((x) => x === i), `tensor ${i}`);
    tensor.destroy();
  }
});
