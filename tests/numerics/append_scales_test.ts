/** Appended rows that get scales of their own: codes and scales bit by bit, and all that is not theirs. */

import assert from "node:assert/strict";
import { appendPagedKvCache, type Device } from "@kvasir/attention";
import {
  type AppendCase,
  type AppendSpec,
  drawAppend,
  expectedBytes,
  ownScale,
  runAppend,
  storedRows,
} from "../support/append.ts";
import { onEachBackend } from "../support/device.ts";
import { rotate } from "../support/positions.ts";
import { store } from "../support/storage.ts";
import { mix32, nextFloat32, randomBits } from "../support/values.ts";

const SOURCES = ["float32", "float16", "bfloat16"] as const;
const CACHES = ["float8_e4m3fn", "float8_e5m2"] as const;
const LAYOUTS = ["NHD", "HND"] as const;

const SPEC: AppendSpec = {
  lengths: [7, 0, 5, 1],
  appended: [3, 0, 5, 1],
  pageSize: 3,
  heads: 2,
  headDim: 16,
  dtype: "float16",
  kvDtype: "float8_e4m3fn",
  kvLayout: "NHD",
  joined: true,
  rowScales: true,
};

function assertBytes(c: AppendCase, got: readonly Uint8Array[]) {
  expectedBytes(c).forEach((bytes, tensor) => {
    const at = bytes.findIndex((byte, i) => byte !== got[tensor][i]);
    if (at < 0) return;
    const { dtype, kvDtype, kvLayout, headDim, joined } = c;
    const label = JSON.stringify({ dtype, kvDtype, kvLayout, headDim, joined });
    assert.fail(`${label}: byte ${at} of tensor ${tensor} is ${got[tensor][at]}, not ${bytes[at]}`);
  });
}

async function check(device: Device, spec: Partial<AppendSpec>) {
  const c = drawAppend({ ...SPEC, ...spec });
  assertBytes(c, await runAppend(device, c));
}

/** A case with other rows: one list of numbers for each row of k, and of v. */
function withRows(
  spec: Partial<AppendSpec>,
  rowOf: (row: number) => ArrayLike<number>,
): AppendCase {
  const c = drawAppend({ ...SPEC, ...spec });
  const fill = (dim: number, first: number) => {
    const rows = c.batchIndices.length * c.heads;
    const values = new Float32Array(rows * dim);
    for (let row = 0; row < rows; row++) values.set(rowOf(first + row), row * dim);
    return store(values, c.dtype);
  };
  const rows = c.batchIndices.length * c.heads;
  return { ...c, key: fill(c.headDim, 0), value: fill(c.headDimV!, rows) };
}

for (const kvDtype of CACHES) {
  onEachBackend(`${kvDtype} rows get their own scales in every kind of cache`, async (device) => {
    for (const dtype of SOURCES) {
      for (const kvLayout of LAYOUTS) {
        for (const joined of [true, false]) {
          await check(device, { dtype, kvDtype, kvLayout, joined });
        }
      }
    }
  });
}

onEachBackend("rows of any length get their own scales", async (device) => {
  for (const headDim of [8, 24, 40, 64, 128, 256, 520]) {
    await check(device, { headDim, heads: 3 });
    await check(device, { headDim, headDimV: 72, joined: false, dtype: "float32" });
    await check(device, { headDim: 24, headDimV: headDim, joined: false, kvLayout: "HND" });
  }
});

onEachBackend("many rows get their own scales", async (device) => {
  await check(device, { lengths: [700, 900], appended: [700, 350], pageSize: 16, headDim: 64 });
});

onEachBackend(
  "scales are the largest magnitude of float32 rows, whatever it is",
  async (device) => {
    for (const kvDtype of CACHES) {
      const spec = { kvDtype, dtype: "float32", headDim: 8, pageSize: 50 } as const;
      const many = { ...spec, lengths: [1000], appended: [1000], heads: 4 };
      const bits = randomBits(8000, kvDtype.length);
      // Any mantissa over all exponents that are no subnormal's.
      const largest = Float32Array.from({ length: 8000 }, (_, row) => {
        const exponent = 1 + mix32(row) % 254;
        return new Float32Array(
          Uint32Array.of((exponent << 23) | (bits[row] & 0x7fffff)).buffer,
        )[0];
      });
      const c = withRows(many, (row) => {
        const m = largest[row];
        return [m, -m / 3, 0, m / 1000, -m, m * 0.99, m / 449, -0].map(Math.fround);
      });
      assertBytes(c, await runAppend(device, c));
    }
  },
);

onEachBackend("rows are multiplied by the nearest factor, to the last bit", async (device) => {
  // Values that this factor brings near the middle of two codes, where a unit of it decides.
  const bits = randomBits(4000, 9);
  const largest = Float32Array.from(
    { length: 4000 },
    (_, row) => new Float32Array(Uint32Array.of((127 << 23) | (bits[row] & 0x7fffff)).buffer)[0],
  );
  const spec = { dtype: "float32", headDim: 8, lengths: [500], appended: [500], heads: 4 } as const;
  for (
    const [kvDtype, middles] of [
      ["float8_e4m3fn", [432, 232, 116, 54, 25, 13.5, 9.5]],
      ["float8_e5m2", [53248, 45056, 11264, 3328, 832, 208, 11]],
    ] as const
  ) {
    const c = withRows({ ...spec, kvDtype, pageSize: 50 }, (row) => {
      const m = largest[row];
      const { factor } = ownScale(Float32Array.of(m), kvDtype);
      return [
        m,
        ...middles.map((middle, i) => nextFloat32(Math.fround(middle / factor), i % 3 - 1)),
      ];
    });
    assertBytes(c, await runAppend(device, c));
  }
});

onEachBackend("mantissas around those of the largest codes are divided exactly", async (device) => {
  const mantissas = [0, 1, 2, 0x5fffff, 0x600000, 0x600001, 0x600002, 0x7ffffe, 0x7fffff];
  const spec = { dtype: "float32", headDim: 8, lengths: [9], appended: [9], heads: 1 } as const;
  for (const kvDtype of CACHES) {
    for (const exponent of [47, 48, 100, 127, 200, 254]) {
      const c = withRows({ ...spec, kvDtype }, (row) => {
        const bits = Uint32Array.of((exponent << 23) | mantissas[row % 9]);
        return new Array(8).fill(new Float32Array(bits.buffer)[0]);
      });
      assertBytes(c, await runAppend(device, c));
    }
  }
});

onEachBackend("rows of zeros, NaN and infinities have a scale", async (device) => {
  const [inf, nan] = [Infinity, NaN];
  const rows = [
    [0, -0, 0, 0, 0, 0, 0, 0],
    [nan, 1, -2, 0.5, 0, 0, 0, 0],
    [inf, 1, -2, 0.5, -inf, 0, 0, 0],
    [nan, inf, -inf, nan, nan, nan, nan, nan],
    [nan, inf, -inf, 0, 0, 0, 0, 0],
    [1e-30, -1e-30, 0, 0, 0, 0, 0, 0],
    [2 ** -80, 2 ** -81, 0, 0, 0, 0, 0, 0],
  ];
  for (const kvDtype of CACHES) {
    for (const dtype of SOURCES) {
      const c = withRows({ kvDtype, dtype, headDim: 8 }, (row) => rows[row % rows.length]);
      assertBytes(c, await runAppend(device, c));
    }
  }
  const scales = rows.map((row) => ownScale(Float32Array.from(row), "float8_e4m3fn").scale);
  assert.equal(scales[0], 1);
  assert.equal(scales[1], Math.fround(2 * Math.fround(1 / 448)));
  assert.equal(scales[2], scales[1]);
  assert.deepEqual(scales.slice(3, 5), [1, 1]);
});

onEachBackend("turned keys are scaled by the turned row", async (device) => {
  const rope = { scale: 1, theta: 1e4 };
  for (const headDim of [8, 64, 72, 256]) {
    for (const kvDtype of CACHES) {
      const c = drawAppend({ ...SPEC, headDim, kvDtype, dtype: "float32", rope });
      const [cache, bytes] = await runAppend(device, c);
      const scales = new Float32Array(bytes.slice().buffer);
      for (const stored of storedRows(c)) {
        const { part, position, row, element } = stored;
        const turned = part === "value"
          ? Float64Array.from(row)
          : rotate(row, position, rope, (x) => x);
        const largest = Math.max(...turned.map(Math.abs));
        const most = kvDtype === "float8_e4m3fn" ? 448 : 57344;
        const scale = scales[stored.scale];
        assert.ok(Math.abs(scale * most / largest - 1) < 2e-6, `${part} ${position}: ${scale}`);
        const codes = store(turned.map((x) => x / scale), kvDtype);
        const got = cache.slice(element, element + headDim);
        // A value near a midpoint may go either way.
        const others = got.filter((code, i) => Math.abs(code - codes.bytes[i]) > 1);
        const moved = got.filter((code, i) => code !== codes.bytes[i]);
        assert.equal(others.length, 0, `${part} at ${position}`);
        assert.ok(
          moved.length <= 1 + headDim / 64,
          `${part} at ${position}: ${moved.length} differ`,
        );
      }
    }
  }
});

onEachBackend("scales of a caller's two tensors are theirs", async (device) => {
  using key = device.tensor([7, ...new Array(7).fill(1)], [1, 1, 8], "float32");
  using value = device.tensor([14, ...new Array(7).fill(2)], [1, 1, 8], "float32");
  using k = device.empty([2, 2, 1, 8], "float8_e4m3fn");
  using v = device.empty([2, 2, 1, 8], "float8_e4m3fn");
  using kvScales = device.empty([2, 1, 2, 2], "float32");
  await appendPagedKvCache(key, value, [0], [1], [k, v], [1], [0, 1], [2], { kvScales });
  assert.deepEqual(await kvScales.read(), Float32Array.of(0, 0, 0, 0, 0, 0, 1 / 64, 1 / 32));
  assert.deepEqual((await k.read()).slice(-8), Float32Array.of(448, ...new Array(7).fill(64)));
});
