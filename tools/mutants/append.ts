/**
 * What can be broken in append and quantize, their planning and their checks.
 *
 * @module
 */

import { type Mutant, mutant } from "./mutant.ts";

const APPEND = ["tests/numerics/append_test.ts"];
const ROPE = ["tests/numerics/append_rope_test.ts"];
const WINDOWS = ["tests/numerics/append_windows_test.ts"];
const QUANTIZE = ["tests/numerics/quantize_test.ts"];
const ARGUMENTS = ["tests/validation/append_arguments_test.ts"];
const TABLES = ["tests/unit/page_indices_test.ts"];
const KERNEL = "shaders/append.wgsl";
const PACKING = ["tests/numerics/rounding_probe_test.ts"];
const CONVERT = "shaders/convert.wgsl";
const KINDS = "/every kind of cache.*webgpu/";

/** Mutants of append and quantize. */
export const APPEND_AND_QUANTIZE: readonly Mutant[] = [
  mutant(
    "dequantize: NaN codes are packed as numbers",
    CONVERT,
    "    return encode_piece(values_of(piece));",
    "    return pack_piece(decode_piece(piece));",
    PACKING,
    "/e4m3 is packed/",
  ),
  mutant(
    "dequantize: NaN codes of a rare piece stay numbers",
    CONVERT,
    "vec4<u32>(0x7fc00000u), is_nan",
    "vec4<u32>(0x43f00000u), is_nan",
    PACKING,
    "/e4m3 is packed/",
  ),
  mutant(
    "rounding: packing is never tested",
    "src/webgpu/rounding_probe.ts",
    "halves[code]\n",
    "halves[code] || true\n",
    PACKING,
    "/packs otherwise/",
  ),
  mutant(
    "append: values are those of the head before",
    KERNEL,
    "values[source_value(row) + lane]",
    "values[source_key(row) + lane / 2u]",
    APPEND,
    KINDS,
  ),
  mutant(
    "append: the first lane too many",
    KERNEL,
    "index >= params.num_work",
    "index > params.num_work",
    APPEND,
    "/(kind of cache|many tokens).*webgpu/",
  ),
  mutant(
    "append: values are scaled as keys",
    KERNEL,
    "factors[params.num_heads + row.head]",
    "factors[row.head]",
    APPEND,
    "/1 / scale.*webgpu/",
  ),
  mutant(
    "append: keys turn by their row",
    KERNEL,
    "turn_of(row.slot.position,",
    "turn_of(row.slot.row,",
    ROPE,
    "/any position.*webgpu/",
  ),
  mutant(
    "append: all quads of a piece turn alike",
    KERNEL,
    "lane * PIECE_QUADS + i);",
    "lane * PIECE_QUADS);",
    ROPE,
    "/every dtype.*webgpu/",
  ),
  mutant(
    "append: upper halves are scaled alone",
    KERNEL,
    "encode_piece(scaled(new_lower, factor))",
    "encode_piece(new_lower)",
    ROPE,
    "/and scaled.*webgpu/",
  ),
  mutant(
    "append: pages are counted from the cache's first",
    "src/webgpu/append_tables.ts",
    "page - firstPage, place",
    "page, place",
    WINDOWS,
  ),
  mutant(
    "append: windows begin at their first page",
    "src/webgpu/append_tables.ts",
    "firstPage * stride - (window?.offset ?? 0)",
    "0 * stride - 0 * (window?.offset ?? 0)",
    WINDOWS,
  ),
  mutant(
    "append: positions end a token late",
    "src/append_problem.ts",
    "isIntegerBelow(value, length)",
    "isIntegerBelow(value, length + 1)",
    ARGUMENTS,
    "/does not fit.*wasm/",
  ),
  mutant(
    "append: requests' pages begin at the first",
    "src/append_problem.ts",
    "indices[indptr[request] + Math.floor(",
    "indices[Math.floor(",
    APPEND,
    "/any size.*wasm/",
  ),
  mutant(
    "append: values lie a token early",
    "src/cache_pages.ts",
    "vOffset: strides.page,",
    "vOffset: strides.page - strides.token,",
    APPEND,
    KINDS,
  ),
  mutant(
    "append: last pages may be empty",
    "src/page_indices.ts",
    "indptr[request + 1] > indptr[request] ? 1 : 0",
    "0",
    TABLES,
  ),
  mutant(
    "append: heads of the CPU's HND follow each other",
    "src/cpu/append.ts",
    "(first + run * strides.head)",
    "(first + run * headDim)",
    APPEND,
    "/every kind of cache.*wasm/",
  ),
  mutant(
    "quantize: tensors of one dtype are rounded",
    CONVERT,
    "@if(copies) fn converted(piece: Piece, factor: f32) -> OutPiece {\n  return piece;",
    "@if(copies) fn converted(piece: Piece, factor: f32) -> OutPiece {\n" +
      "  return encode_piece(decode_piece(piece));",
    QUANTIZE,
    "/every bit of it.*webgpu/",
  ),
  mutant(
    "quantize: quads of a piece are swapped",
    CONVERT,
    "encode_quad(quads[2]), encode_quad(quads[3])",
    "encode_quad(quads[3]), encode_quad(quads[2])",
    QUANTIZE,
    "/1 / scale.*webgpu/",
  ),
  mutant(
    "quantize: a lane's pieces lie side by side",
    "shaders/quantize.wgsl",
    "result[first + r * WORKGROUP] =",
    "result[first + r] =",
    QUANTIZE,
    "/fill a GPU.*webgpu/",
  ),
  mutant(
    "quantize: parts are not aligned",
    "src/webgpu/quantize_plan.ts",
    "most - most % ALIGNMENT",
    "most",
    ["tests/unit/append_plan_test.ts"],
  ),
  mutant(
    "quantize: the CPU's chunks forget where they are",
    "src/cpu/convert.ts",
    "[result, start * bytesPerElement(to), to]",
    "[result, 0, to]",
    QUANTIZE,
    "/to their end.*wasm/",
  ),
  mutant(
    "quantize: NaN codes are numbers",
    CONVERT,
    "(nan_mark(piece) & 0x80808080u) != 0u) {\n    let marks",
    "(nan_mark(piece) & 0x00808080u) != 0u) {\n    let marks",
    QUANTIZE,
    "/every code.*webgpu/",
  ),
  mutant(
    "quantize: NaN codes are packed as numbers",
    CONVERT,
    "(nan_mark(piece) & 0x80808080u) != 0u) {\n    return",
    "(nan_mark(piece) & 0x00808080u) != 0u) {\n    return",
    QUANTIZE,
    "/every code.*webgpu/",
  ),
  mutant(
    "quantize: infinities are beyond what saturates",
    "shaders/formats/addition.wgsl",
    "let magnitude = min(magnitudes, vec4<u32>(format.limit));",
    "let magnitude = select(min(magnitudes, vec4<u32>(format.limit)), magnitudes, magnitudes == INFINITE);",
    QUANTIZE,
    "/midpoints.*webgpu/",
  ),
  mutant(
    "quantize: any adder will do",
    "src/webgpu/rounding_probe.ts",
    ".filter(([, count]) => count > 0)",
    ".filter(([, count]) => count > 1e9)",
    ["tests/numerics/rounding_probe_test.ts"],
  ),
];
