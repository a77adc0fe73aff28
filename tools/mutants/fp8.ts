/**
 * What can be broken of FP8 outputs, and of NaN and infinity on their way through.
 *
 * @module
 */

import { type Mutant, mutant } from "./mutant.ts";

const PATH = ["tests/numerics/fp8_path_test.ts"];
const NAN = ["tests/numerics/nan_everywhere_test.ts"];
const APPEND = ["tests/numerics/append_test.ts"];
const MERGE = ["tests/numerics/merge_test.ts"];
const RANDOM = ["tests/numerics/quantize_random_test.ts"];
const ROUNDING = "shaders/formats/rounding.wgsl";

/** Mutants of FP8's special codes. */
export const FP8_CODES: readonly Mutant[] = [
  mutant(
    "fp8: NaN in an output saturates",
    ROUNDING,
    "vec4<u32>(0x7fu), magnitude > vec4<u32>(INFINITE)",
    "vec4<u32>(largest), magnitude > vec4<u32>(INFINITE)",
    PATH,
    "/padded decode .webgpu/",
  ),
  mutant(
    "fp8: outputs do not saturate",
    ROUNDING,
    "min(small_code(magnitude, mantissa_bits, least), vec4<u32>(largest))",
    "min(small_code(magnitude, mantissa_bits, least), vec4<u32>(largest + 1u))",
    PATH,
    "/cascade .webgpu/",
  ),
  mutant(
    "fp8: the least bits of random floats are cut",
    ROUNDING,
    "let rest = bits & ((half << vec4<u32>(1u)) - 1u);",
    "let rest = bits & ((half << vec4<u32>(1u)) - 1u) & vec4<u32>(0xfffffff0u);",
    RANDOM,
    "/integers alone/",
  ),
  mutant(
    "fp8: appended NaN saturates",
    "shaders/formats/addition.wgsl",
    "select(signed, vec4<u32>(0x7fu + more), magnitude > INFINITE)",
    "signed",
    APPEND,
    "/NaN, infinity.*webgpu/",
  ),
  mutant(
    "fp8: keys whose weights are all 0 give NaN",
    "shaders/decode.wgsl",
    "let has_weight = bitcast<u32>(merged) != 0u;",
    "let has_weight = has_keys;",
    NAN,
    "/infinity in k.*webgpu/",
  ),
  mutant(
    "fp8: a merge of NaN alone is nothing",
    "shaders/merge.wgsl",
    "bitcast<u32>(merged) != 0u",
    "merged != 0.0",
    MERGE,
    "/NaN beside empty.*webgpu/",
  ),
  mutant(
    "fp8: NaN codes of v count in every column of their quads",
    "shaders/pieces.wgsl",
    "& vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u);\n      quads[u]",
    "& vec4<u32>(0x80808080u);\n      quads[u]",
    NAN,
    "/e4m3fn: ragged.*webgpu/",
  ),
];
