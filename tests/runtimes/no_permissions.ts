/**
 * What `permissions_test.ts` runs in a process without any permission: the example of the README
 * on each backend that there is. Prints one line of JSON.
 *
 * @module
 */

import {
  batchDecodeWithPaddedKvCache,
  decodeFp8,
  encodeFp8,
  NoAdapterError,
  openDevice,
} from "@kvasir/attention";

const Q = Float32Array.from({ length: 2 * 4 * 64 }, (_, i) => Math.sin(i));
const KV = Float32Array.from({ length: 2 * 33 * 2 * 64 }, (_, i) => Math.cos(i * 1.7));

async function decodeOn(backend: "wasm" | "webgpu"): Promise<number[] | null> {
  try {
    using device = await openDevice({ backend });
    using q = device.tensor(Q, [2, 4, 64], "float16");
    using kv = device.tensor(KV, [2, 33, 2, 64], "float8_e4m3fn");
    using out = await batchDecodeWithPaddedKvCache(q, kv, kv, {
      kvLayout: "NHD",
      posEncodingMode: "NONE",
    });
    return [...await out.read()];
  } catch (error) {
    if (error instanceof NoAdapterError) return null;
    throw error;
  }
}

const codes = encodeFp8(KV, "float8_e5m2");
console.log(JSON.stringify({
  wasm: await decodeOn("wasm"),
  webgpu: await decodeOn("webgpu"),
  codec: decodeFp8(codes, "float8_e5m2").length,
}));
