/**
 * Options that are tensors: which they are, and the options with their values in their place.
 *
 * @module
 */

import { decodeToFloat32 } from "./cpu/codec.ts";
import type { Storage } from "./backend.ts";
import { TENSOR_OPTIONS } from "./attention_options.ts";
import type { KvasirDevice } from "./device.ts";
import { DTypeError, ShapeError } from "./errors.ts";
import type { AttentionOptions } from "./options.ts";
import { show } from "./shape.ts";
import { DeviceTensor } from "./tensor.ts";

/** A tensor, with the name that errors give it. */
export type OptionTensor = readonly [subject: `options.${string}`, tensor: DeviceTensor];

/** The options that are tensors; each must be a list of float32. */
export function tensorsOf(options: AttentionOptions): OptionTensor[] {
  const found: OptionTensor[] = [];
  for (const name of TENSOR_OPTIONS) {
    const value: unknown = (options as AttentionOptions | null)?.[name];
    if (!(value instanceof DeviceTensor)) continue;
    const { dtype, shape } = value;
    const hint = 'Make it with device.tensor(values, [heads], "float32"), or give a plain array.';
    if (dtype !== "float32") {
      throw new DTypeError(`options.${name}`, { got: dtype, expected: "float32", hint });
    }
    if (shape.length !== 1) {
      const got = `shape ${show(shape)}`;
      throw new ShapeError(`options.${name}`, { got, expected: "one dim, of heads", hint });
    }
    found.push([`options.${name}`, value]);
  }
  return found;
}

/** A copy of the options, lists included: their owner may change them while tensors are read. */
export function copyOptions<Options extends AttentionOptions>(options: Options): Options {
  const copy = Object.entries(options).map(([name, value]) => [name, copyOf(value)]);
  return Object.fromEntries(copy);
}

function copyOf(value: unknown): unknown {
  if (Array.isArray(value)) return Array.from(value);
  if (!ArrayBuffer.isView(value) || value instanceof DataView) return value;
  // Not the value's own slice, which may be Node's Buffer's, and copies nothing.
  return Uint8Array.prototype.slice.call(value);
}

/** The options with the values of `storages` in the place of tensors. */
export async function readOptions<Options extends AttentionOptions>(
  device: KvasirDevice,
  options: Options,
  tensors: readonly OptionTensor[],
  storages: readonly Storage[],
): Promise<Options> {
  const bytes = await Promise.all(storages.map((storage) => device.engine.read(storage)));
  return withLists(options, tensors, bytes.map((one) => decodeToFloat32(one, "float32")));
}

/** The options with zeros in the place of tensors, to check all but their values. */
export function withZeros<Options extends AttentionOptions>(
  options: Options,
  tensors: readonly OptionTensor[],
): Options {
  const zeros = tensors.map(([, { shape: [heads] }]) => new Float32Array(heads));
  return withLists(options, tensors, zeros);
}

function withLists<Options extends AttentionOptions>(
  options: Options,
  tensors: readonly OptionTensor[],
  lists: readonly Float32Array[],
): Options {
  if (tensors.length === 0) return options; // as it is, even if it is no object
  const names = tensors.map(([subject]) => subject.replace("options.", ""));
  return { ...options, ...Object.fromEntries(names.map((name, i) => [name, lists[i]])) };
}
