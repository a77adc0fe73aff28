/**
 * From a checked call to its results: reads what options are tensors, allocates, and hands over to
 * the backend.
 *
 * @module
 */

import { hasQueries } from "./attention_problem.ts";
import type { AttentionCall, TensorSpec } from "./attention_shapes.ts";
import type { AttentionOperands } from "./backend.ts";
import type { KvasirDevice } from "./device.ts";
import type { DType } from "./dtype.ts";
import { copyOptions, readOptions, tensorsOf, withZeros } from "./option_tensors.ts";
import type { AttentionOptions } from "./options.ts";
import { elementCount } from "./shape.ts";
import {
  asDeviceTensor,
  commonDevice,
  type DeviceTensor,
  type Tensor,
  useTensors,
} from "./tensor.ts";

/** An attention output with the log-sum-exp of its logits. */
export interface AttentionWithLse {
  /** The output, in q's shape, but with v's head dim. */
  readonly out: Tensor;
  /**
   * Float32, q's shape without the head dim: the logarithm (base 2, or natural with
   * `lseBase: "ln"`) of the sum of exp of the logits.
   */
  readonly lse: Tensor;
}

/** Runs a call that has no plan: `check` makes it of shapes, dtypes and options. */
export async function attend<Options extends AttentionOptions>(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: Options,
  check: (q: TensorSpec, k: TensorSpec, v: TensorSpec, options: Options) => AttentionCall,
): Promise<Tensor | AttentionWithLse> {
  const inputs = [
    ["q", asDeviceTensor("q", q)],
    ["k", asDeviceTensor("k", k)],
    ["v", asDeviceTensor("v", v)],
  ] as const;
  const specs = [inputs[0][1], inputs[1][1], inputs[2][1]] as const;
  const tensors = tensorsOf(options);
  const scales = scalesOf(options);
  const device = commonDevice([...inputs, ...tensors, ...scales]);
  // All but the values of tensors is settled before the caller can change anything.
  const given = tensors.length === 0 ? options : copyOptions(options);
  const planned = check(...specs, withZeros(given, tensors));
  return await useTensors(
    [...inputs, ...tensors, ...scales],
    async ([q, k, v, ...rest]) => {
      const values = rest.slice(0, tensors.length);
      const call = values.length === 0
        ? planned
        : check(...specs, await readOptions(device, given, tensors, values));
      return await compute(device, call, { q, k, v, kvScales: rest[tensors.length] });
    },
  );
}

/** The tensor of tokens' scales, if there is one; unlike other options it stays on the device. */
function scalesOf(options: AttentionOptions): readonly (readonly [string, DeviceTensor])[] {
  const value: unknown = (options as AttentionOptions | null)?.kvScales;
  if (value === undefined) return [];
  return [["options.kvScales", asDeviceTensor("options.kvScales", value)]];
}

/** Computes a call over storages that stay alive; a failure leaves no new tensor behind. */
async function compute(
  device: KvasirDevice,
  call: AttentionCall,
  inputs: Omit<AttentionOperands, "out" | "lse">,
): Promise<Tensor | AttentionWithLse> {
  const { problem, outShape, lseShape, returnLse } = call;
  const made: DeviceTensor[] = [];
  const make = (shape: readonly number[], dtype: DType) => {
    const tensor = device.empty(shape, dtype);
    made.push(tensor);
    return tensor;
  };
  try {
    const out = make(outShape, problem.outDtype);
    const lse = returnLse ? make(lseShape, "float32") : null;
    const results = lse ? [["out", out], ["lse", lse]] as const : [["out", out]] as const;
    await useTensors(results, async ([outStorage, lseStorage = null]) => {
      if (call.hasPadding && lseStorage) {
        const padding = new Float32Array(elementCount(lseShape)).fill(-Infinity);
        device.engine.write(lseStorage, 0, new Uint8Array(padding.buffer));
      }
      if (!hasQueries(problem)) return;
      await device.engine.attend(problem, { ...inputs, out: outStorage, lse: lseStorage });
    });
    return lse ? { out, lse } : out;
  } catch (error) {
    for (const tensor of made) tensor.destroy();
    throw error;
  }
}
