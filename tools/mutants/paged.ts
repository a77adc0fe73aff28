/**
 * What can be broken in paged attention, in what planned calls keep, in cascades and in the paged cache.
 *
 * @module
 */

import { type Mutant, mutant } from "./mutant.ts";

const PAGED = ["tests/numerics/paged_test.ts"];
const PLANNED = ["tests/numerics/planned_test.ts"];
const CASCADE = ["tests/numerics/cascade_test.ts"];
const CACHE = ["tests/numerics/paged_kv_cache_test.ts"];
const REFUSED = ["tests/validation/paged_test.ts"];
const PREPARED = "src/webgpu/prepared.ts";

/** Mutants of all that has pages, but for the page table. */
export const PAGED_ATTENTION: readonly Mutant[] = [
  mutant(
    "paged: decode reads k for v",
    "src/webgpu/decode_tables.ts",
    'elementBytes - ((name === "k" ? k : v).offset ?? 0);',
    "elementBytes;",
    PAGED,
    "/decode: pages of 16, one tensor.*webgpu/",
  ),
  mutant(
    "paged: prefill reads k for v",
    "src/webgpu/prefill_tables.ts",
    "-(v.offset ?? 0)",
    "0",
    PAGED,
    "/prefill: pages of 16, one tensor.*webgpu/",
  ),
  mutant(
    "paged: WASM reads k for v",
    "src/cpu/descriptor.ts",
    "offset * bytesPerElement(problem.kvDtype)",
    "0 * offset",
    PAGED,
    "/pages of 16, one tensor.*wasm/",
  ),
  mutant(
    "paged: all tokens are on the first page",
    "shaders/address.wgsl",
    "page_table[work.first_page + position / PAGE_SIZE]",
    "page_table[work.first_page]",
    PAGED,
    "/decode: pages of 3, a pair.*webgpu/",
  ),
  mutant(
    "paged: a request is a token shorter",
    "src/page_indices.ts",
    "(pages - 1) * pageSize + len",
    "(pages - 1) * pageSize + len - 1",
    PAGED,
    "/decode: pages of 3, a pair.*wasm/",
  ),
  mutant(
    "paged: requests begin at each other's pages",
    "src/paged_problem.ts",
    "table.lengths[i], table.indptr[i]]",
    "table.lengths[i], table.indptr[0]]",
    PAGED,
    "/decode: pages of 3, a pair.*wasm/",
  ),
  mutant(
    "paged: a cache one page too small passes",
    "src/paged_problem.ts",
    "if (lastPage < cache.numPages) return;",
    "if (lastPage <= cache.numPages) return;",
    REFUSED,
    "/refuses caches.*wasm/",
  ),
  mutant(
    "planned: a pair is read as one tensor",
    "src/paged_attention.ts",
    "if (cache.vOffset !== this.#cache!.vOffset)",
    "if (cache.vOffset === undefined)",
    PLANNED,
    "/a pair, by turns.*webgpu/",
  ),
  mutant(
    "planned: new lengths are not written",
    PREPARED,
    "this.#context.device.queue.writeBuffer(buffer, 0, tableWords(problem, stretches));",
    "void [buffer, stretches];",
    PLANNED,
    "/growing lengths.*webgpu/",
  ),
  mutant(
    "planned: stretches end where they did",
    "src/webgpu/decode_tables.ts",
    "return length === old ? stretch : { ...stretch, end: length };",
    "return stretch;",
    PLANNED,
    "/growing lengths.*webgpu/",
  ),
  mutant(
    "planned: bind groups of other operands",
    PREPARED,
    "key += `${id},${byteOffset},${byteLength};`;",
    "key += `${byteOffset},${byteLength};`;",
    PLANNED,
    "/other tensors.*webgpu/",
  ),
  mutant(
    "planned: a new plan overwrites what a run reads",
    PREPARED,
    "return memory && !this.#isUsed(memory) ? memory",
    "return memory ? memory",
    PLANNED,
    "/has the plan of its call.*webgpu/",
  ),
  mutant(
    "planned: new lengths overwrite what a run reads",
    PREPARED,
    "const moved = !this.#isUsed(planned.memory) && planned.decode",
    "const moved = planned.decode",
    PLANNED,
    "/has the plan of its call.*webgpu/",
  ),
  mutant(
    "planned: the caller's encoder is left empty",
    PREPARED,
    "if (encoder) recordPass(context.device, encoder, bind(), {});",
    "if (encoder) bind();",
    PLANNED,
    "/recorded in an encoder.*webgpu/",
  ),
  mutant(
    "planned: buffers are made anew",
    "src/webgpu/memory.ts",
    "if (known && known.usage === usage && known.size >= byteLength) return known;",
    "",
    PLANNED,
    "/no more memory.*webgpu/",
  ),
  mutant(
    "cascade: shared levels are causal",
    "src/cascade_problem.ts",
    "{ causal: causal && isLast,",
    "{ causal,",
    CASCADE,
    "/cascade 1.*wasm/",
  ),
  mutant(
    "cascade: a sink joins at each level",
    "src/cascade_problem.ts",
    "isLast ? own : { ...own, sinks: null }",
    "own",
    CASCADE,
    "/cascade 4.*wasm/",
  ),
  mutant(
    "cascade: every row is merged with the first",
    "src/webgpu/work_plan.ts",
    "j % 2 ? 1 : j >> 2",
    "j % 2 ? 1 : 0",
    CASCADE,
    "/cascade 0.*webgpu/",
  ),
  mutant(
    "cascade: the second level is left out",
    "src/webgpu/work_plan.ts",
    "if (!isLast) joined = result as typeof joined;",
    "",
    CASCADE,
    "/cascade 2.*webgpu/",
  ),
  mutant(
    "cache: shared pages are not copied",
    "src/paged_kv_cache.ts",
    "await this.#memory.copyPages(copies);",
    "",
    CACHE,
    "/appends, forks.*wasm/",
  ),
  mutant(
    "cache: only k is copied",
    "src/cache_memory.ts",
    "for (const part of PARTS) {\n      // A GPU",
    'for (const part of ["k"] as const) {\n      // A GPU',
    CACHE,
    "/appends, forks.*wasm/",
  ),
  mutant(
    "cache: positions begin at each append",
    "src/paged_kv_cache.ts",
    "places[token], first + i]",
    "places[token], i + 0 * first]",
    CACHE,
    "/attention over it|any order/",
  ),
  mutant(
    "cache: HND rows in page order",
    "src/cache_runs.ts",
    "head * count + token - begin",
    "head * pageSize + token - begin",
    CACHE,
    "/appends, forks.*wasm/",
  ),
  mutant(
    "cache: a reservation stays when it is taken back",
    "src/paged_kv_cache.ts",
    "this.#table.undo(this.#pending.reservation);",
    "",
    CACHE,
    "/taken back.*wasm/",
  ),
  mutant(
    "cache: a failed restore leaves a sequence",
    "src/paged_kv_cache.ts",
    "      this.#table.free(sequence);\n      throw error;",
    "      throw error;",
    CACHE,
    "/out of memory.*wasm/",
  ),
];
