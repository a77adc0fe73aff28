/**
 * What can be broken in scales of tokens: writing them, reading them, and keeping them.
 *
 * @module
 */

import { type Mutant, mutant } from "./mutant.ts";

const APPEND = ["tests/numerics/append_scales_test.ts"];
const QUOTIENTS = ["tests/numerics/row_scale_test.ts"];
const DECODE = ["tests/numerics/decode_scales_test.ts"];
const PREFILL = ["tests/numerics/prefill_scales_test.ts"];
const CACHE = ["tests/numerics/paged_kv_cache_test.ts"];
const QUANTIZE = ["tests/numerics/quantize_kv_test.ts"];
const ROW_SCALE = "shaders/append/row_scale.wgsl";
const APPENDING = "shaders/append_scaled.wgsl";
const DECODING = "shaders/decode.wgsl";
const PREFILLING = "shaders/prefill.wgsl";

/** Mutants of scales of tokens. */
export const TOKEN_SCALES: readonly Mutant[] = [
  mutant(
    "scales: factors are what division gives",
    ROW_SCALE,
    "units += step;",
    "",
    QUOTIENTS,
  ),
  mutant(
    "scales: mantissas above 1.75 are halved",
    ROW_SCALE,
    "(bits >> 23u) - select(0u, 1u, is_above)",
    "(bits >> 23u)",
    APPEND,
    "/nearest factor.*webgpu/",
  ),
  mutant(
    "scales: factors are a unit off",
    ROW_SCALE,
    "return bitcast<u32>(units);",
    "return bitcast<u32>(units) ^ 1u;",
    APPEND,
    "/nearest factor.*webgpu/",
  ),
  mutant(
    "scales: infinity is the largest magnitude",
    ROW_SCALE,
    "bits < vec4<u32>(INFINITE)",
    "bits <= vec4<u32>(INFINITE)",
    APPEND,
    "/zeros, NaN.*webgpu/",
  ),
  mutant(
    "scales: rows of zeros have a tiny one",
    ROW_SCALE,
    "if (largest == 0u) {",
    "if (largest == 1u) {",
    APPEND,
    "/zeros, NaN.*webgpu/",
  ),
  mutant(
    "scales: lanes do not meet",
    APPENDING,
    "row_scale(atomicLoad(&largest[team]))",
    "row_scale(magnitude)",
    APPEND,
    "/own scales in every kind.*webgpu/",
  ),
  mutant(
    "scales: teams meet as one",
    APPENDING,
    "atomicMax(&largest[team], magnitude);",
    "atomicMax(&largest[team], magnitude); atomicMax(&largest[(team + 1u) % TEAMS], magnitude);",
    APPEND,
    "/own scales in every kind.*webgpu/",
  ),
  mutant(
    "scales: those of values lie where keys' do",
    APPENDING,
    "2u * pair + select(1u, 0u, is_key)",
    "2u * pair",
    APPEND,
    "/own scales in every kind.*webgpu/",
  ),
  mutant(
    "scales: the last row stores too",
    APPENDING,
    "let has_row = index < params.num_work;",
    "let has_row = index <= params.num_work;",
    APPEND,
    "/(many rows|every kind).*webgpu/",
  ),
  mutant(
    "scales: the maximum is of the row before it is turned",
    APPENDING,
    "pieces[s + 1u][i] = turned_upper(lower[i], upper[i], turn);",
    "pieces[s + 1u][i] = upper[i];",
    APPEND,
    "/turned keys.*webgpu/",
  ),
  mutant(
    "scales: the CPU writes those of values over keys'",
    "src/cpu/append.ts",
    "scales: scalesOf(1)",
    "scales: scalesOf(0)",
    APPEND,
    "/own scales in every kind.*wasm/",
  ),
  mutant(
    "scales: decode takes those of the step before",
    DECODING,
    "next_scales = load_scales(work, pages, kv_head, next, own_row);",
    "next_scales = load_scales(work, pages, kv_head, first, own_row);",
    DECODE,
    "/many requests.*webgpu/",
  ),
  mutant(
    "scales: decode takes those of absent keys",
    "shaders/rows.wgsl",
    "select(vec2<f32>(0.0), scales[j], first + j < end)",
    "scales[j]",
    DECODE,
    "/every dtype.*webgpu/",
  ),
  mutant(
    "scales: decode's denominator has those of values",
    DECODING,
    "      denominator[i % REFS] += own[i];\n      @if(token_scales) own[i] *= scales[i / REFS].y;",
    "      @if(token_scales) own[i] *= scales[i / REFS].y;\n      denominator[i % REFS] += own[i];",
    DECODE,
    "/every dtype.*webgpu/",
  ),
  mutant(
    "scales: rows of a lane's sums all take the first",
    "shaders/rows.wgsl",
    "place_of(first) + r + j)",
    "place_of(first) + r)",
    DECODE,
    "/every dtype.*portable/",
  ),
  mutant(
    "scales: the page table begins an entry late",
    "src/webgpu/decode_tables.ts",
    "...scaleWords(problem, 2 * dispatch.stretches.length + problem.numQoHeads),",
    "...scaleWords(problem, 2 * dispatch.stretches.length + problem.numQoHeads + 1),",
    DECODE,
    "/pages of 3.*webgpu/",
  ),
  mutant(
    "scales: prefill's tiles take those of the first",
    PREFILLING,
    "load_scales(work, kv_head, first, key_lane)",
    "load_scales(work, kv_head, work.first_key, key_lane)",
    PREFILL,
    "/(every dtype|wide tiles).*webgpu/",
  ),
  mutant(
    "scales: prefill lets those of unseen keys through",
    PREFILLING,
    "select(weights * key_scales.v[j], vec4<f32>(0.0), weights == vec4<f32>(0.0))",
    "weights * key_scales.v[j]",
    PREFILL,
    "/may be anything.*webgpu/",
  ),
  mutant(
    "scales: prefill's page table begins an entry early",
    "src/webgpu/prefill_tables.ts",
    "...scaleWords(problem, variantAt + variantEntries(problem)),",
    "...scaleWords(problem, variantAt + variantEntries(problem) - 1),",
    PREFILL,
    "/pages of 5.*webgpu/",
  ),
  mutant(
    "scales: ragged ones begin at the request's number",
    "src/ragged_problem.ts",
    "{ page: 1, head: tokens }",
    "{ page: 0, head: tokens }",
    PREFILL,
    "/ragged.*wasm/",
  ),
  mutant(
    "scales: copies of pages have none",
    "src/cache_memory.ts",
    "for (const part of this.parts) {\n      // A GPU",
    'for (const part of ["k", "v"] as const) {\n      // A GPU',
    CACHE,
    "/appends, forks.*wasm/",
  ),
  mutant(
    "scales: HND's lie as NHD's",
    "src/quantize_kv_problem.ts",
    'const heads = layout === "NHD" ? numKvHeads : 1;',
    "const heads = numKvHeads;",
    QUANTIZE,
    "/any layout.*wasm/",
  ),
];
