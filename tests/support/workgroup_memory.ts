/** What a linked shader declares of workgroup memory. */

import { evaluate } from "../../src/webgpu/constant_expression.ts";

/** Its variables begin at multiples of so many bytes here, which is more than WebGPU counts. */
const ALIGNMENT = 16;
const BYTES: Readonly<Record<string, number>> = {
  f32: 4,
  u32: 4,
  "atomic<u32>": 4,
  "vec4<f32>": 16,
};

/** Bytes of all `var<workgroup>` of `text`, each from an aligned address on. */
export function workgroupBytes(text: string, constants: Readonly<Record<string, number>>): number {
  const sizeOf = (type: string): number => {
    if (type in BYTES) return BYTES[type];
    const array = /^array<(.+),\s*([^,<>]+)>$/.exec(type);
    if (array) return sizeOf(array[1]) * evaluate(array[2], constants);
    const [, members] = new RegExp(`struct ${type} \\{\\n([^}]*)\\}`).exec(text) ?? [];
    if (members === undefined) throw new Error(`of ${type} the size is not known`);
    return [...members.matchAll(/\w+: (.+),\n/g)].reduce((sum, [, of]) => sum + sizeOf(of), 0);
  };
  let bytes = 0;
  for (const [, type] of text.matchAll(/var<workgroup> \w+: (.+);/g)) {
    bytes += Math.ceil(sizeOf(type) / ALIGNMENT) * ALIGNMENT;
  }
  return bytes;
}
