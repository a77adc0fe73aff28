/**
 * Merging attention states: outputs over parts of the keys become the output over all of them.
 *
 * @module
 */

import type { MergeProblem } from "./attention_problem.ts";
import type { Storage } from "./backend.ts";
import type { AttentionWithLse } from "./attend.ts";
import { OptionError } from "./errors.ts";
import { type MergeInPlaceOptions, mergeMany, mergePair } from "./merge_problem.ts";
import {
  asDeviceTensor,
  commonDevice,
  type DeviceTensor,
  type Tensor,
  useTensors,
} from "./tensor.ts";

/**
 * Merges two attention states row by row (FlashInfer's `merge_state`): with
 * `w = 2^(s - max(sA, sB))`, `out = (wA·vA + wB·vB) / (wA + wB)` and
 * `lse = max(sA, sB) + log2(wA + wB)`. So attention over some keys, merged with attention over the
 * others, is attention over all of them.
 *
 * @param vA `[n, H, D]`; outputs of attention, any dtype.
 * @param sA `[n, H]`, float32: their lse in base 2 (`returnLse: true`). -Infinity is a state over no
 *   key, whose v is not looked at; +Infinity, which no attention gives, makes its row and head NaN.
 * @param vB vA's shape and dtype.
 * @param sB sA's shape.
 * @returns out `[n, H, D]` in vA's dtype, and lse `[n, H]` in float32, base 2. Two empty states give
 *   0 and -Infinity.
 * @throws {ShapeError} or `DTypeError` when the arguments do not fit; `LimitError`,
 *   `DestroyedError`, `DeviceMismatchError`; `OutOfMemoryError`, `DeviceLostError` or `ShaderError`
 *   from the GPU.
 *
 * @example
 * ```ts
 * import { mergeState, openDevice, singleDecodeWithKvCache } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
 * using q = device.tensor(random(4 * 8), [4, 8], "float32");
 * using first = device.tensor(random(5 * 4 * 8), [5, 4, 8], "float32");
 * using rest = device.tensor(random(3 * 4 * 8), [3, 4, 8], "float32");
 * const a = await singleDecodeWithKvCache(q, first, first, { returnLse: true });
 * const b = await singleDecodeWithKvCache(q, rest, rest, { returnLse: true });
 * // singleDecode gives [H, D]; a state is [n, H, D].
 * using vA = device.tensor(await a.out.read(), [1, 4, 8], "float32");
 * using sA = device.tensor(await a.lse.read(), [1, 4], "float32");
 * using vB = device.tensor(await b.out.read(), [1, 4, 8], "float32");
 * using sB = device.tensor(await b.lse.read(), [1, 4], "float32");
 * const { out, lse } = await mergeState(vA, sA, vB, sB);
 * console.log(out.shape, lse.shape); // [1, 4, 8] [1, 4]
 * ```
 */
export async function mergeState(
  vA: Tensor,
  sA: Tensor,
  vB: Tensor,
  sB: Tensor,
): Promise<AttentionWithLse> {
  const inputs = named({ vA, sA, vB, sB });
  const [a, sumA, b, sumB] = inputs.map(([, tensor]) => tensor);
  commonDevice(inputs);
  const problem = mergePair({ v: a, s: sumA }, { v: b, s: sumB }, ["vA", "sA", "vB", "sB"]);
  return await merge(problem, inputs, a.shape, sumA.shape);
}

/**
 * Merges another state into a state, in place (FlashInfer's `merge_state_in_place`). The formula is
 * that of {@linkcode mergeState}. When the call fails, `v` and `s` are as they were.
 *
 * @param v `[n, H, D]`, any dtype: becomes the merged output.
 * @param s `[n, H]`, float32, base 2: becomes the merged lse.
 * @param vOther v's shape and dtype.
 * @param sOther s's shape.
 * @param options `mask`: which of the n rows are merged; the others stay as they are.
 * @throws {ShapeError} `DTypeError` or `OptionError` when the arguments do not fit; else as
 *   {@linkcode mergeState}.
 *
 * @example
 * ```ts
 * import { mergeStateInPlace, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * using v = device.tensor([1, 1, 5, 5], [2, 1, 2], "float32");
 * using s = device.tensor([0, 0], [2, 1], "float32");
 * using vOther = device.tensor([3, 3, 7, 7], [2, 1, 2], "float32");
 * using sOther = device.tensor([0, 0], [2, 1], "float32");
 * await mergeStateInPlace(v, s, vOther, sOther, { mask: [true, false] });
 * console.log(await v.read(), await s.read()); // [2, 2, 5, 5] [1, 0]
 * ```
 */
export async function mergeStateInPlace(
  v: Tensor,
  s: Tensor,
  vOther: Tensor,
  sOther: Tensor,
  options: MergeInPlaceOptions = {},
): Promise<void> {
  const inputs = named({ v, s, vOther, sOther });
  const [own, ownSum, other, otherSum] = inputs.map(([, tensor]) => tensor);
  const device = commonDevice(inputs);
  const problem = mergePair(
    { v: own, s: ownSum },
    { v: other, s: otherSum },
    ["v", "s", "vOther", "sOther"],
    options,
  );
  await useTensors(inputs.slice(0, 2), async ([vStorage, sStorage]) => {
    checkWritable("v", vStorage);
    checkWritable("s", sStorage);
    const merged = await merge(problem, inputs, own.shape, ownSum.shape);
    const results = named({ out: merged.out, lse: merged.lse });
    try {
      await useTensors(results, async ([outStorage, lseStorage]) => {
        await device.engine.copy(outStorage, vStorage);
        await device.engine.copy(lseStorage, sStorage);
      });
    } finally {
      merged.out.destroy();
      merged.lse.destroy();
    }
  });
}

/**
 * Merges S attention states of each row (FlashInfer's `merge_states`). The formula is that of
 * {@linkcode mergeState}, over all S at once.
 *
 * @param v `[n, S, H, D]`; outputs of attention, any dtype.
 * @param s `[n, S, H]`, float32: their lse in base 2.
 * @returns out `[n, H, D]` in v's dtype, and lse `[n, H]` in float32, base 2.
 * @throws {ShapeError} or `DTypeError` when the arguments do not fit; else as
 *   {@linkcode mergeState}.
 *
 * @example
 * ```ts
 * import { mergeStates, openDevice } from "@kvasir/attention";
 *
 * using device = await openDevice({ backend: "wasm" });
 * using v = device.tensor([1, 1, 2, 2, 6, 6], [1, 3, 1, 2], "float32");
 * using s = device.tensor([0, 0, -Infinity], [1, 3, 1], "float32");
 * const { out, lse } = await mergeStates(v, s);
 * console.log(await out.read(), await lse.read()); // [1.5, 1.5] [1]
 * ```
 */
export async function mergeStates(v: Tensor, s: Tensor): Promise<AttentionWithLse> {
  const inputs = named({ v, s });
  const [values, sums] = inputs.map(([, tensor]) => tensor);
  commonDevice(inputs);
  const problem = mergeMany({ v: values, s: sums });
  const { numRows, numHeads, headDim } = problem;
  return await merge(problem, inputs, [numRows, numHeads, headDim], [numRows, numHeads]);
}

type NamedTensor = readonly [subject: string, tensor: DeviceTensor];

function named(tensors: Readonly<Record<string, Tensor>>): NamedTensor[] {
  return Object.entries(tensors).map(([name, tensor]) => [name, asDeviceTensor(name, tensor)]);
}

/** The bit of a GPUBuffer's usage that lets it be copied to. */
const COPY_DST = 8;

/** Throws `OptionError` for a buffer of the caller's that nothing may be copied to. */
function checkWritable(subject: string, { buffer }: Storage): void {
  if (buffer === null || buffer.usage & COPY_DST) return;
  throw new OptionError(subject, {
    got: `a buffer of usage 0x${buffer.usage.toString(16)}`,
    expected: "usage COPY_DST, to be changed in place",
    hint: "Add GPUBufferUsage.COPY_DST when creating it, or use mergeState.",
  });
}

/** Allocates the results and hands over to the backend; a failure leaves no tensor behind. */
async function merge(
  problem: MergeProblem,
  inputs: readonly NamedTensor[],
  outShape: readonly number[],
  lseShape: readonly number[],
): Promise<AttentionWithLse> {
  const { device } = inputs[0][1];
  return await useTensors(inputs, async (storages: Storage[]) => {
    // A second source that no row takes any of is the first again.
    const [vA, sA, vB = vA, sB = sA] = storages;
    const out = device.empty(outShape, problem.outDtype);
    const lse = device.empty(lseShape, "float32");
    try {
      await useTensors(
        [["out", out], ["lse", lse]],
        ([outStorage, lseStorage]) =>
          device.engine.merge(problem, { vA, sA, vB, sB, out: outStorage, lse: lseStorage }),
      );
      return { out, lse };
    } catch (error) {
      out.destroy();
      lse.destroy();
      throw error;
    }
  });
}
