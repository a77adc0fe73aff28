/** One decode step for `deno bench`, as a token loop sees it: the call, until its result is read. */

import { batchDecodeWithPaddedKvCache, NoAdapterError, openDevice } from "@kvasir/attention";
import { DTYPES } from "../src/dtype.ts";

const Q_SHAPE = [1, 32, 128];
const KV_SHAPE = [1, 1024, 8, 128];
const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
const qValues = random(32 * 128);
const kvValues = random(1024 * 8 * 128);

for (const backend of ["wasm", "webgpu"] as const) {
  try {
    // It lives as long as the process: Deno.bench runs after this module has.
    const device = await openDevice({ backend });
    const q = device.tensor(qValues, Q_SHAPE, "float16");
    for (const dtype of DTYPES) {
      const kv = device.tensor(kvValues, KV_SHAPE, dtype);
      const options = { group: `decode on ${backend}`, baseline: dtype === "float16" };
      Deno.bench(`decode 1024 keys, 32/8, ${dtype} [${backend}]`, options, async () => {
        using out = await batchDecodeWithPaddedKvCache(q, kv, kv);
        await out.read();
      });
    }
  } catch (error) {
    if (!(error instanceof NoAdapterError)) throw error;
    console.log(`decode on ${backend} is left out: ${error.got}`);
  }
}
