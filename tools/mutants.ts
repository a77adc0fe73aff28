// Breaks the kernels and their planning on purpose, one place at a time, and looks whether a test fails.
//
//   deno task mutants [TEXT]    runs the mutants whose name holds TEXT; exits with 1 if one survives
//
// Each mutant is an edit of a copy of the tree; the tests that should catch it run there. Takes about
// 20 minutes on 2 cores, so it is no part of `deno task ok`.

import { APPEND_AND_QUANTIZE } from "./mutants/append.ts";
import { FP8 } from "./mutants/fp8.ts";
import { type Mutant, mutant } from "./mutants/mutant.ts";
import { PAGED_ATTENTION } from "./mutants/paged.ts";
import { PAGES } from "./mutants/pages.ts";
import { PLANNED_CALLS } from "./mutants/planned.ts";
import { PREFILL_KERNEL } from "./mutants/prefill.ts";
import { TOKEN_SCALES } from "./mutants/scales.ts";

const OPTIONS = ["tests/numerics/decode_options_test.ts"];
const POSITIONS = ["tests/numerics/decode_positions_test.ts"];
const SPLIT = ["tests/numerics/decode_split_test.ts"];
const MERGE = ["tests/numerics/merge_test.ts"];
const PREFILL = ["tests/numerics/prefill_options_test.ts"];
const MASKS = ["tests/unit/attention_mask_test.ts"];
const ADDRESSES = ["tests/numerics/decode_addresses_test.ts"];
const WINDOWS = "/sliding windows.*webgpu/";
const EDGES = "/every edge.*webgpu/";
const DECODE = "shaders/decode.wgsl";
const MIXED = ["tests/numerics/mixed_formats_test.ts"];
const ROWS = "shaders/rows.wgsl";

const SHADERS: readonly Mutant[] = [
  mutant(
    "values past the end are kept",
    ROWS,
    "first + r < end",
    "first + r <= end",
    OPTIONS,
    WINDOWS,
  ),
  mutant(
    "a logit past the end counts",
    DECODE,
    "own[i], position < work.end_key",
    "own[i], position <= work.end_key",
    OPTIONS,
    WINDOWS,
  ),
  mutant(
    "the last step passes for whole",
    DECODE,
    "<= work.end_key;",
    "<= work.end_key + 1u;",
    SPLIT,
    EDGES,
  ),
  mutant(
    "sums are not rescaled",
    DECODE,
    "output[h * LANE_QUADS + i] *= rescales[h];",
    "output[h * LANE_QUADS + i] *= 1.0;",
    SPLIT,
    "/reference follows.*webgpu/",
  ),
  mutant(
    "the denominator is not rescaled",
    DECODE,
    "denominator[i] *= rescale[i];",
    "",
    SPLIT,
    "/reference follows.*webgpu/",
  ),
  mutant(
    "the reference never grows",
    DECODE,
    "const GROWTH = 8.0;",
    "const GROWTH = 3.0e38;",
    OPTIONS,
    WINDOWS,
  ),
  mutant(
    "groups begin at the wrong head",
    DECODE,
    "return kv_head * params.group +",
    "return kv_head +",
    OPTIONS,
    WINDOWS,
  ),
  mutant(
    "a lane takes a piece too many",
    ROWS,
    "return slot * TEAM + lane < PIECES;",
    "return slot * TEAM + lane <= PIECES;",
    ["tests/numerics/decode_grid_test.ts"],
    "/head dim (40|24|56).*webgpu/",
  ),
  mutant(
    "all rows weigh as the first",
    DECODE,
    "vec4<f32>(weights[r * HEADS + h])",
    "vec4<f32>(weights[h])",
    OPTIONS,
    WINDOWS,
  ),
  mutant(
    "lse without its logarithm",
    DECODE,
    "(level + log2(merged)) *",
    "(level + 0.0 * merged) *",
    OPTIONS,
    WINDOWS,
  ),
  mutant(
    "the sink is left out",
    DECODE,
    "+ exp2(head.sink - level);",
    "+ 0.0 * head.sink;",
    OPTIONS,
    "/sinks near.*webgpu/",
  ),
  mutant(
    "the sink's level is left out",
    DECODE,
    "level = select(head.sink, max(merged_reference, head.sink), has_keys);",
    "level = merged_reference;",
    OPTIONS,
    "/sinks near.*webgpu/",
  ),
  mutant(
    "NaN of values in the wrong column",
    DECODE,
    "vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u);",
    "vec4<u32>(0x8000u, 0x80u, 0x800000u, 0x80000000u);",
    OPTIONS,
    "/NaN in one.*webgpu/",
  ),
  mutant(
    "NaN keys are forgotten",
    DECODE,
    "atomicOr(&key_marks, 1u);",
    "atomicOr(&key_marks, 0u);",
    OPTIONS,
    "/NaN and infinity.*webgpu/",
  ),
  mutant(
    "NaN values are forgotten",
    DECODE,
    "v_mark |= v_pieces::nan_mark(values[r * SLOTS + s]);",
    "",
    ["tests/numerics/decode_nan_test.ts"],
    "webgpu",
  ),
  mutant(
    "the parts of a block serve the same heads",
    DECODE,
    "(block * PARTS + part) * HEADS; // of the group",
    "(block * PARTS) * HEADS;",
    ["tests/numerics/decode_grid_test.ts"],
    "/group (7|8|9) .*webgpu/",
  ),
  mutant(
    "the next rows are those after",
    DECODE,
    "min(step + 1u, last_step)",
    "min(step + 2u, last_step)",
    SPLIT,
    EDGES,
  ),
  mutant(
    "the query is turned a position early",
    DECODE,
    "turn_of(max(work.kv_len, 1u) - 1u,",
    "turn_of(max(work.kv_len, 2u) - 2u,",
    POSITIONS,
    "/rotary encoding over.*webgpu/",
  ),
  mutant(
    "upper halves turn the wrong way",
    "shaders/rope.wgsl",
    "upper * turn.cosine + lower * turn.sine",
    "upper * turn.cosine - lower * turn.sine",
    POSITIONS,
    "/rotary encoding over.*webgpu/",
  ),
  mutant(
    "coarse turns are left out",
    "shaders/rope.wgsl",
    "position / 256u) * ROPE_QUADS",
    "position / 512u) * ROPE_QUADS",
    POSITIONS,
    "/rotary encoding (over|at).*webgpu/",
  ),
  mutant(
    "ALiBi the other way",
    "shaders/logits.wgsl",
    "return fma(slope, distance, logit);",
    "return fma(-slope, distance, logit);",
    POSITIONS,
    "/ALiBi.*webgpu/",
  ),
  mutant(
    "the cap loses NaN",
    "shaders/logits.wgsl",
    "select(value, x, bitcast<u32>(y) > 0x7f800000u)",
    "value",
    OPTIONS,
    "/NaN and infinity.*webgpu/",
  ),
  mutant(
    "a coefficient of the cap",
    "shaders/logits.wgsl",
    "z, 21.0, 1260.0",
    "z, 21.0, 1240.0",
    OPTIONS,
    "/soft caps.*webgpu/",
  ),
  mutant(
    "weights come from the wrong lane",
    "shaders/team/subgroups.wgsl",
    "(value / OWN) * COPIES",
    "(value / OWN)",
    ["tests/numerics/golden_test.ts"],
    "/group3.*webgpu/",
  ),
  mutant(
    "halves are swapped",
    "shaders/team/subgroups.wgsl",
    "let is_upper = (place & (TEAM >> (s + 1u))) != 0u;",
    "let is_upper = (place & (TEAM >> (s + 1u))) == 0u;",
    SPLIT,
    EDGES,
  ),
  mutant(
    "rows of other lanes are not in the sum",
    "shaders/team/subgroups.wgsl",
    "result += subgroupShuffleXor(result, distance);",
    "result += 0.0;",
    SPLIT,
    EDGES,
  ),
  mutant(
    "the portable sum misses a lane",
    "shaders/team/workgroup.wgsl",
    "other < TEAM; other++",
    "other < TEAM - 1u; other++",
    SPLIT,
    EDGES,
  ),
  mutant(
    "windows begin at the cache's start",
    "shaders/address.wgsl",
    "kv_head * params.k_head - params.k_base",
    "kv_head * params.k_head",
    ADDRESSES,
    "/larger than/",
  ),
  mutant(
    "keys are read by v's format",
    "src/webgpu/piece_parts.ts",
    "roles: { k_format: k.module, v_format: v.module },",
    "roles: { k_format: v.module, v_format: v.module },",
    MIXED,
    "/paged decode.*webgpu/",
  ),
  mutant(
    "the output is in k's unit",
    DECODE,
    "head.out_scale * v_format::UNIT",
    "head.out_scale * k_format::UNIT",
    MIXED,
    "/paged decode.*webgpu/",
  ),
  mutant(
    "quads of v are as wide as k's",
    "src/webgpu/piece_parts.ts",
    "...oneOf(`${name}_quad`, quadWords),",
    "...oneOf(`${name}_quad`, k.quadWords),",
    MIXED,
    "/prefill, every.*webgpu/",
  ),
  mutant(
    "values are appended in k's dtype",
    "src/webgpu/append_plan.ts",
    'pass(vDtype, ["v"])',
    'pass(kDtype, ["v"])',
    MIXED,
    "/an append.*webgpu/",
  ),
  mutant(
    "values are appended in k's dtype, on WASM",
    "src/cpu/append.ts",
    "stored: problem.vDtype,",
    "stored: problem.kDtype,",
    MIXED,
    "/an append.*wasm/",
  ),
  mutant(
    "a saved sequence says k's dtype of v",
    "src/saved_sequence.ts",
    "view.setUint8(13, DTYPE_CODES.indexOf(vDtype));",
    "view.setUint8(13, DTYPE_CODES.indexOf(kDtype));",
    MIXED,
    "/PagedKvCache.*wasm/",
  ),
  mutant(
    "pages are looked up for the step at hand",
    DECODE,
    "min(step + 2u, last_step)",
    "min(step + 1u, last_step)",
    ["tests/numerics/paged_test.ts"],
    "/many requests.*webgpu/",
  ),
  mutant(
    "one page is looked up for all rows",
    "src/webgpu/decode_shape.ts",
    "windowLeft === null && pageSize % rows === 0",
    "pageSize >= rows",
    ADDRESSES,
    "/pages/",
  ),
  mutant(
    "one page is looked up under a window",
    "src/webgpu/decode_shape.ts",
    "windowLeft === null && pageSize % rows === 0",
    "pageSize % rows === 0",
    ["tests/numerics/paged_test.ts"],
    "/windows.*webgpu/",
  ),
  mutant(
    "pages are off by one",
    "shaders/address.wgsl",
    "work.first_page + min(wanted,",
    "work.first_page + min(wanted + 1u,",
    ADDRESSES,
    "/pages/",
  ),
  mutant(
    "an empty state's v is read",
    "shaders/merge.wgsl",
    "select(value[u], vec4<f32>(0.0), is_empty)",
    "value[u]",
    MERGE,
    "/empty.*webgpu/",
  ),
  mutant(
    "merged sums are not rescaled",
    "shaders/merge.wgsl",
    "sum *= rescale;",
    "",
    MERGE,
    "/any number.*webgpu/",
  ),
  mutant(
    "teams of a pair are mixed up",
    "shaders/merge.wgsl",
    "let first_team = team - team % TEAMS;",
    "let first_team = 0u;",
    MERGE,
    "/any number.*webgpu/",
  ),
  mutant(
    "kept rows are merged",
    "shaders/merge.wgsl",
    "let is_kept = row.y == KEEP_ROW;",
    "let is_kept = false;",
    MERGE,
    "/the mask.*webgpu/",
  ),
  mutant(
    "kept rows come from the row before",
    "shaders/merge.wgsl",
    "v_a[(row.x * params.num_heads + head) * QUADS + lane]",
    "v_a[(max(row.x, 1u) - 1u) * params.num_heads * QUADS + lane]",
    MERGE,
    "/the mask.*webgpu/",
  ),
  mutant(
    "the last state is left out",
    "shaders/merge.wgsl",
    "first + u < count)",
    "first + u < count - 1u)",
    MERGE,
    "/any number.*webgpu/",
  ),
  mutant(
    "ties round up",
    "shaders/formats/rounding.wgsl",
    "((kept & vec4<u32>(1u)) == vec4<u32>(1u))",
    "((kept & vec4<u32>(1u)) != vec4<u32>(2u))",
    ["tests/numerics/output_rounding_test.ts"],
    "webgpu",
  ),
];

const PLANNING: readonly Mutant[] = [
  mutant(
    "outputs are multiplied with their scale",
    "src/attention_options.ts",
    "v[Math.floor(head / group)] / outScale",
    "v[Math.floor(head / group)] * outScale",
    OPTIONS,
    "/many options.*wasm/",
  ),
  mutant(
    "stretches overlap",
    "src/webgpu/decode_schedule.ts",
    "end: Math.min(end, from + length)",
    "end: Math.min(end, from + length + 1)",
    ["tests/unit/decode_schedule_test.ts"],
  ),
  mutant(
    "stretches come as they are",
    "src/webgpu/decode_schedule.ts",
    "for (let i = keys.length - 1; i >= 0; i--) sorted",
    "for (let i = 0; i < keys.length; i++) sorted",
    ["tests/unit/decode_schedule_test.ts"],
  ),
  mutant(
    "a merge costs nothing",
    "src/webgpu/decode_schedule.ts",
    "const MERGE_COST = 100;",
    "const MERGE_COST = -1000;",
    ["tests/unit/decode_schedule_test.ts"],
  ),
  mutant(
    "the device is never filled twice",
    "src/webgpu/decode_schedule.ts",
    "const MOST_ROUNDS = 6;",
    "const MOST_ROUNDS = 0;",
    ["tests/unit/decode_schedule_test.ts"],
  ),
  mutant(
    "the window is a key too short",
    "src/webgpu/decode_stretches.ts",
    "end - 1 - windowLeft",
    "end - windowLeft",
    ["tests/unit/decode_plan_test.ts"],
  ),
  mutant(
    "states of requests are mixed",
    "src/webgpu/decode_stretches.ts",
    "next[request] = isSplit ? first :",
    "next[request] = isSplit ? request :",
    ["tests/unit/decode_plan_test.ts"],
  ),
  mutant(
    "windows are not aligned",
    "src/webgpu/decode_windows.ts",
    "Math.floor(first / alignment) * alignment",
    "first",
    ["tests/unit/decode_windows_test.ts"],
  ),
  mutant(
    "windows overlap",
    "src/webgpu/decode_windows.ts",
    "Math.min(end, from + step)",
    "Math.min(end, from + step + 1)",
    ["tests/unit/decode_windows_test.ts"],
  ),
  mutant(
    "teams are wider than subgroups",
    "src/webgpu/decode_shape.ts",
    "subgroups?.min ?? 16",
    "subgroups?.max ? 64 : 16",
    ["tests/unit/decode_shape_test.ts"],
  ),
  mutant(
    "a lane's share of the values",
    "src/webgpu/decode_shape.ts",
    "ROW_STRIDE: copies * Math.max(1, heads / own)",
    "ROW_STRIDE: copies",
    ["tests/unit/decode_shape_test.ts"],
  ),
  mutant(
    "heads are read once a head",
    "src/webgpu/decode_tuning.ts",
    "export const MAX_BLOCK_HEADS = 8;",
    "export const MAX_BLOCK_HEADS = 4;",
    ["tests/unit/decode_shape_test.ts"],
  ),
  mutant(
    "sinks stay natural",
    "src/webgpu/decode_tables.ts",
    "sinks[head] * LOG2_E",
    "sinks[head]",
    OPTIONS,
    "/sinks near.*webgpu/",
  ),
  mutant(
    "slopes stay natural",
    "src/webgpu/decode_tables.ts",
    "alibiSlopes[head] * unit",
    "alibiSlopes[head]",
    POSITIONS,
    "/ALiBi.*webgpu/",
  ),
  mutant(
    "turns of neighbouring dims are swapped",
    "src/webgpu/rope_table.ts",
    "turns[at + QUAD] = Math.sin",
    "turns[at + QUAD] = -Math.sin",
    ["tests/unit/rope_table_test.ts"],
  ),
  mutant(
    "a merge of too few workgroups",
    "src/webgpu/merge_plan.ts",
    "Math.ceil(numWork / pairs)",
    "Math.floor(numWork / pairs)",
    MERGE,
    "/any number.*webgpu/",
  ),
  mutant(
    "the last slopes",
    "src/alibi.ts",
    "-4 * (2 * (head - n) + 1) / n",
    "-4 * (2 * (head - n)) / n",
    POSITIONS,
    "/ALiBi.*webgpu/",
  ),
  mutant(
    "v's scale by the query head",
    "src/attention_options.ts",
    "checkOutScale(v[Math.floor(head / group)] / outScale)",
    "checkOutScale(v[head % numKvHeads] / outScale)",
    OPTIONS,
    "/scales of each.*webgpu/",
  ),
  mutant(
    "rows of a mask as long as the keys in use",
    "src/attention_mask.ts",
    "row * request.columns",
    "row * request.kvLen",
    MASKS,
  ),
  mutant(
    "a mask's bits keep their shift",
    "src/attention_mask.ts",
    "shift === 0 ? low : low >>> shift | bytes[byte + 4] << (32 - shift)",
    "low >>> shift",
    MASKS,
  ),
  mutant(
    "bits behind a row's last key",
    "src/attention_mask.ts",
    " & (0xffffffff >>> (32 - inUse))",
    "",
    MASKS,
  ),
  mutant(
    "masks that follow on each other's bits",
    "src/attention_mask.ts",
    "return Math.ceil(rows * columns / 8);",
    "return rows * columns / 8;",
    MASKS,
  ),
  mutant(
    "a mask beside causal",
    "src/attention_mask.ts",
    "return { causal: false, mask:",
    "return { causal, mask:",
    MASKS,
  ),
  mutant(
    "requests of q as long as their queries",
    "src/prefill_problem.ts",
    "[i * rows, qoLen, kvLens[i], i]",
    "[i * qoLen, qoLen, kvLens[i], i]",
    PREFILL,
    "/causal or not.*wasm/",
  ),
  mutant(
    "v with k's strides",
    "src/prefill_problem.ts",
    "vStrides: cacheStrides(layout, { ...cache, headDim: headDimV })",
    "vStrides: cacheStrides(layout, cache)",
    ["tests/numerics/prefill_grid_test.ts"],
    "/head dims.*wasm/",
  ),
  mutant(
    "lse's padding stays 0",
    "src/attend.ts",
    "fill(-Infinity)",
    "fill(0)",
    PREFILL,
    "/causal or not.*wasm/",
  ),
  mutant(
    "ragged requests begin at their numbers",
    "src/ragged_problem.ts",
    "Uint32Array.from(kvIndptr.slice(0, -1))",
    "Uint32Array.from(kvLens.keys())",
    ["tests/numerics/prefill_ragged_test.ts"],
    "/both layouts.*wasm/",
  ),
  mutant(
    "ragged heads as far apart as padded ones",
    "src/ragged_problem.ts",
    "tokens * headDim };",
    "numKvHeads * headDim };",
    ["tests/numerics/prefill_ragged_test.ts"],
    "/both layouts.*wasm/",
  ),
  mutant(
    "a plan that fails is in force",
    "src/ragged_prefill.ts",
    "const checked = raggedPrefill(plan, this.#layout);",
    "this.#plan = null;\n    const checked = raggedPrefill(plan, this.#layout);",
    ["tests/numerics/prefill_ragged_test.ts"],
    "/plans are copies.*wasm/",
  ),
  mutant(
    "staging buffers serve too early",
    "src/webgpu/readback.ts",
    "staging.unmap();\n    } catch {",
    "} catch {",
    ["tests/numerics/readback_test.ts"],
    "webgpu",
  ),
];

const [wanted = ""] = Deno.args;
const mutants = [
  ...SHADERS,
  ...PREFILL_KERNEL,
  ...APPEND_AND_QUANTIZE,
  ...PLANNING,
  ...PAGES,
  ...PAGED_ATTENTION,
  ...TOKEN_SCALES,
  ...FP8,
  ...PLANNED_CALLS,
].filter(({ name }) => name.includes(wanted));
const root = new URL("..", import.meta.url).pathname;

async function run(cwd: string, command: string, args: readonly string[]): Promise<boolean> {
  const { success } = await new Deno.Command(command, {
    args: [...args],
    cwd,
    stdout: "null",
    stderr: "null",
    env: { XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp", REQUIRE_GPU: "1" },
  }).output();
  return success;
}

/** Whether the tests notice. */
async function isCaught(copy: string, { file, from, to, tests, filter }: Mutant): Promise<boolean> {
  const path = `${copy}/${file}`;
  const text = await Deno.readTextFile(path);
  if (text.split(from).length < 2) throw new Error(`${file} has no ${JSON.stringify(from)}`);
  await Deno.writeTextFile(path, text.replace(from, to));
  try {
    const deno = Deno.execPath();
    if (file.startsWith("shaders/")) {
      await run(copy, deno, ["run", "-A", "tools/build.ts", "--no-wasm"]);
    }
    const filters = filter ? ["--filter", filter] : [];
    return !await run(copy, deno, ["test", "-A", "--no-check", ...filters, ...tests]);
  } finally {
    await Deno.writeTextFile(path, text);
    if (file.startsWith("shaders/")) {
      await run(copy, Deno.execPath(), ["run", "-A", "tools/build.ts", "--no-wasm"]);
    }
  }
}

// An edit whose text has changed would be found late.
let isStale = false;
for (const { name, file, from } of mutants) {
  if ((await Deno.readTextFile(new URL(`../${file}`, import.meta.url))).includes(from)) continue;
  console.log(`STALE    ${name}: ${file} has no ${JSON.stringify(from)}`);
  isStale = true;
}
if (isStale) Deno.exit(1);

const queue = [...mutants];
const survivors: string[] = [];
await Promise.all([0, 1].map(async () => {
  const copy = await Deno.makeTempDir();
  await run(root, "sh", ["-c", `git ls-files -z | xargs -0 cp --parents -t ${copy}`]);
  for (let next = queue.shift(); next; next = queue.shift()) {
    const begin = performance.now();
    const caught = await isCaught(copy, next);
    if (!caught) survivors.push(next.name);
    const seconds = ((performance.now() - begin) / 1000).toFixed(0);
    console.log(`${caught ? "caught  " : "SURVIVED"} ${next.name} (${seconds} s)`);
  }
  await Deno.remove(copy, { recursive: true });
}));
console.log(`${mutants.length - survivors.length} of ${mutants.length} caught`);
Deno.exit(survivors.length > 0 ? 1 : 0);
