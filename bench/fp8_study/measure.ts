/**
 * One measurement: the library's decode on the WASM backend over one cache, against float64.
 *
 * @module
 */

import { type Device, singleDecodeWithKvCache } from "@kvasir/attention";
import { type Cache, store } from "./caches.ts";
import type { Inputs } from "./inputs.ts";
import { type Errors, errorsOf, type Reference } from "./reference.ts";

/** The errors of a cache, with q and k as they are or prepared. */
export async function measure(
  device: Device,
  inputs: Inputs,
  exact: Reference,
  cache: Cache,
  { q, k }: Pick<Inputs, "q" | "k"> = inputs,
): Promise<Errors> {
  const keys = await store(device, k, inputs, cache);
  const values = await store(device, inputs.v, inputs, cache);
  using kTensor = keys.tensor;
  using vTensor = values.tensor;
  const { tokenScales: ofValues } = values;
  using kvScales = keys.tokenScales && ofValues && device.tensor(
    [...keys.tokenScales].flatMap((scale, i) => [scale, ofValues[i]]),
    [inputs.numKvHeads, inputs.length, 2],
    "float32",
  );
  using qTensor = device.tensor(q, [inputs.numQoHeads, inputs.headDim], "float32");
  using out = await singleDecodeWithKvCache(qTensor, kTensor, vTensor, {
    kvLayout: "HND",
    kScale: keys.scale,
    vScale: values.scale,
    kvScales,
  });
  return errorsOf(inputs, exact, { q, k: keys.values, out: await out.read() });
}
