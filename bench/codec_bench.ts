/** The codec for `deno bench`: 1 Mi values, into arrays that are there. */

import { decodeFp8, encodeFp8 } from "@kvasir/attention";

const VALUES = 1 << 20;
const values = Float32Array.from({ length: VALUES }, () => 6 * (Math.random() - 0.5));
const floats = new Float32Array(VALUES);
const codes = new Uint8Array(VALUES);

Deno.bench("copy 1 Mi float32", { group: "codec", baseline: true }, () => floats.set(values));
for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
  Deno.bench(`encode 1 Mi ${dtype}`, { group: "codec" }, () => {
    encodeFp8(values, dtype, { out: codes });
  });
  Deno.bench(`decode 1 Mi ${dtype}`, { group: "codec" }, () => {
    decodeFp8(codes, dtype, { out: floats });
  });
}
