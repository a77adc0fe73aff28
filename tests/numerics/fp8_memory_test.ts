/** What FP8 is for: tensors and caches of half the bytes that float16 takes, as the report counts them. */

import assert from "node:assert/strict";
import { type Device, type DType, PagedKvCache } from "@kvasir/attention";
import { onEachBackend } from "../support/device.ts";

const CACHE = { numPages: 7, pageSize: 5, numKvHeads: 3, headDim: 24, numLayers: 2 } as const;

/** The bytes that the report has more while `make`'s result lives. */
function bytesOf(device: Device, make: () => Disposable): number {
  const before = device.report.memory.bytes;
  using _ = make();
  return device.report.memory.bytes - before;
}

const FP8 = ["float8_e4m3fn", "float8_e5m2"] as const;

onEachBackend("an FP8 tensor has half the bytes of a float16 one", (device) => {
  const bytes = (dtype: DType) => bytesOf(device, () => device.empty([2, 7, 5, 3, 24], dtype));
  assert.equal(bytes("float16"), 2 * 7 * 5 * 3 * 24 * 2);
  for (const dtype of FP8) assert.equal(2 * bytes(dtype), bytes("float16"), dtype);
  return Promise.resolve();
});

onEachBackend("an FP8 PagedKvCache has half the bytes of a float16 one", (device) => {
  const bytes = (options: Pick<Parameters<typeof PagedKvCache.create>[1], "dtype" | "kvScales">) =>
    bytesOf(device, () => PagedKvCache.create(device, { ...CACHE, ...options }));
  const half = bytes({ dtype: "float16" });
  const rows = 2 * 7 * 5 * 3 * 2; // of k and v, in all layers
  assert.equal(half, rows * 24 * 2);
  for (const dtype of FP8) {
    assert.equal(2 * bytes({ dtype }), half, dtype);
    // Scales of tokens add 4 bytes a row.
    assert.equal(2 * (bytes({ dtype, kvScales: "token" }) - 4 * rows), half, `${dtype}, scales`);
  }
  const mixed = bytes({ dtype: { k: "float8_e5m2", v: "float8_e4m3fn" } });
  assert.equal(2 * mixed, half, "e5m2 and e4m3");
  return Promise.resolve();
});
