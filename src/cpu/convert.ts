/**
 * Conversion of a tensor in the WASM memory by the crate's codec.
 *
 * @module
 */

import type { ConvertProblem } from "../convert_problem.ts";
import { bytesPerElement } from "../dtype.ts";
import { convert } from "./append.ts";
import type { WasmInstance } from "./wasm_module.ts";

/** Elements that are multiplied at a time: they stay in the processor's cache. */
const CHUNK = 1 << 15;

/** Carries out a conversion. */
export function convertElements(
  instance: WasmInstance,
  { count, from, to, factor }: ConvertProblem,
  { source, result }: { readonly source: number; readonly result: number },
): void {
  if (factor === 1) return convert(instance, [source, 0, from], [result, 0, to], count);
  const scratch = instance.allocate(CHUNK * 4, "a chunk in float32");
  try {
    const bytes = instance.view(scratch, CHUNK * 4);
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, CHUNK);
    for (let start = 0; start < count; start += CHUNK) {
      const length = Math.min(CHUNK, count - start);
      const place = start * bytesPerElement(from);
      convert(instance, [source, place, from], [scratch, 0, "float32"], length);
      for (let i = 0; i < length; i++) values[i] *= factor;
      convert(instance, [scratch, 0, "float32"], [result, start * bytesPerElement(to), to], length);
    }
  } finally {
    instance.free(scratch);
  }
}
