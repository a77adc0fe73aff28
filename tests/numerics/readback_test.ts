/** Reading back: the right bytes, whichever way they come, and soon. */

import assert from "node:assert/strict";
import { onEachBackend } from "../support/device.ts";

/** Values that differ in every round. */
const round = (n: number, i: number) => Float32Array.from({ length: n }, (_, j) => i * 1000 + j);

onEachBackend("read() gives each tensor's own bytes, many in a row and at once", async (device) => {
  for (let i = 0; i < 40; i++) {
    using tensor = device.tensor(round(300, i), [300], "float32");
    assert.deepEqual(await tensor.read(), round(300, i));
  }
  const sizes = [1, 7, 1000, 5000, 300_000];
  const tensors = sizes.flatMap((n) =>
    [0, 1, 2].map((i) => device.tensor(round(n, i), [n], "float32"))
  );
  const read = await Promise.all(tensors.map((tensor) => tensor.read()));
  read.forEach((values, at) => {
    assert.deepEqual(values, round(sizes[Math.floor(at / 3)], at % 3));
    tensors[at].destroy();
  });
});

onEachBackend(
  "read() of a small tensor takes less than Deno's wait for a mapping",
  async (device) => {
    using tensor = device.tensor(round(4096, 1), [4096], "float16");
    const times: number[] = [];
    for (let i = 0; i < 60; i++) {
      const begin = performance.now();
      await tensor.read();
      times.push(performance.now() - begin);
    }
    // The first reads prepare buffers; a promise of mapAsync takes 10 ms at least.
    const later = times.slice(30).sort((a, b) => a - b);
    assert.ok(later[15] < 8, `${later[15].toFixed(1)} ms in the median`);
  },
);

onEachBackend(
  "a read under way when the device is destroyed fails or gives its bytes",
  async (device) => {
    const tensor = device.tensor(round(64, 3), [64], "float32");
    await tensor.read();
    const under_way = tensor.read();
    tensor.destroy();
    const values = await under_way;
    assert.deepEqual(values, round(64, 3));
  },
);
