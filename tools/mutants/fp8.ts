/**
 * What can be broken in the choice of FP8 decoding, in the tables, and in what becomes of NaN and infinity.
 *
 * @module
 */

import { type Mutant, mutant } from "./mutant.ts";

const CHOICE = ["tests/unit/fp8_choice_test.ts"];
const PROBE = ["tests/numerics/fp8_probe_test.ts"];
const PATH = ["tests/numerics/fp8_path_test.ts"];
const NAN = ["tests/numerics/fp8_nan_test.ts"];
const ENCODER = ["tests/numerics/fp8_encoder_test.ts"];
const CHOOSING = "src/webgpu/fp8_choice.ts";
const PROBING = "src/webgpu/fp8_probe.ts";
const ROUNDING = "shaders/formats/rounding.wgsl";

/** Mutants of FP8. */
export const FP8: readonly Mutant[] = [
  mutant(
    "fp8: noise decides",
    CHOOSING,
    "best.codesPerNanosecond * MARGIN",
    "best.codesPerNanosecond",
    CHOICE,
  ),
  mutant(
    "fp8: wrong ways may win",
    CHOOSING,
    "trials.filter(({ fault }) => fault === null)",
    "trials.filter(() => true)",
    CHOICE,
  ),
  mutant(
    "fp8: queries take ways with marks",
    CHOOSING,
    "fastest(exact.filter(({ nanMarks }) => !nanMarks))",
    "fastest(exact)",
    CHOICE,
  ),
  mutant(
    "fp8: a clock's steps are the largest",
    "src/webgpu/fp8_timing.ts",
    "Number(bits & -bits)",
    "Number(bits)",
    CHOICE,
  ),
  mutant(
    "fp8: what does not compile fails the device",
    PROBING,
    "if (!(error instanceof ShaderError)) throw error;",
    "throw error;",
    PROBE,
    "/does not compile.*webgpu/",
  ),
  mutant(
    "fp8: software is timed",
    PROBING,
    "const untimed = isSoftware",
    "const untimed = false",
    PROBE,
    "/go by order.*webgpu/",
  ),
  mutant(
    "fp8: queries of an untested way",
    "src/webgpu/formats.ts",
    `exact(dtype, fp8[dtype], "unmarked")`,
    `"formats/e4m3_bits"`,
    PROBE,
    "/queries are decoded.*webgpu/",
  ),
  mutant(
    "fp8: a wrong entry of the table",
    "shaders/formats/e4m3_table.wgsl",
    "0x3b000000u",
    "0x3b000001u",
    PROBE,
    "/every way.*webgpu/",
  ),
  mutant(
    "fp8: bytes of a word in the wrong order",
    "shaders/formats/e5m2_table.wgsl",
    "(word >> 16u) & 0xffu",
    "(word >> 8u) & 0xffu",
    PROBE,
    "/every way.*webgpu/",
  ),
  mutant(
    "fp8: NaN saturates",
    ROUNDING,
    "vec4<u32>(0x7fu), magnitude > vec4<u32>(INFINITE)) <<",
    "vec4<u32>(0x7fu), magnitude > vec4<u32>(0xffffffffu)) <<",
    PATH,
    "/padded decode .*webgpu/",
  ),
  mutant(
    "fp8: outputs beyond the largest wrap",
    ROUNDING,
    "vec4<u32>(largest)) |",
    "vec4<u32>(largest + 1u)) |",
    PATH,
    "/padded (decode|prefill) .*webgpu/",
  ),
  mutant(
    "fp8: what is far below the least number is not 0",
    ROUNDING,
    "min(shift + least - exponent, vec4<u32>(25u))",
    "min(shift + least - exponent, vec4<u32>(24u))",
    ENCODER,
    "webgpu",
  ),
  mutant(
    "fp8: a NaN among empty states is none",
    "shaders/merge.wgsl",
    "bitcast<u32>(merged) != 0u",
    "merged > 0.0",
    NAN,
    "/cascade shares.*webgpu/",
  ),
  mutant(
    "fp8: keys whose weights are all 0 make decode NaN",
    "shaders/decode.wgsl",
    "let has_weight = bitcast<u32>(merged) != 0u;",
    "let has_weight = has_keys;",
    NAN,
    "/last key.*webgpu/",
  ),
  mutant(
    "fp8: appended NaN saturates",
    "shaders/formats/addition.wgsl",
    "select(signed, vec4<u32>(0x7fu + more), magnitude > INFINITE)",
    "signed",
    ["tests/numerics/append_test.ts"],
    "/NaN, infinity.*webgpu/",
  ),
];
