/**
 * What can be broken in planned calls: what they keep, write anew and give back.
 *
 * @module
 */

import { type Mutant, mutant } from "./mutant.ts";

const PAGED = ["tests/numerics/paged_test.ts"];
const PLANNED = ["tests/numerics/planned_test.ts"];
const STEPS = ["tests/numerics/planned_steps_test.ts"];
const DECODE_PLAN = ["tests/unit/decode_plan_test.ts"];
const RUNS = ["tests/validation/paged_run_test.ts"];
const PROBLEM = ["tests/unit/paged_problem_test.ts"];
const PREPARED = "src/webgpu/prepared.ts";

/** Mutants of planned calls. */
export const PLANNED_CALLS: readonly Mutant[] = [
  mutant(
    "planned: an update does not hear of a lost device",
    PREPARED,
    "  update(problem: AttentionProblem): void {\n    this.#context.guard.check();",
    "  update(problem: AttentionProblem): void {",
    RUNS,
    "/that is lost/",
  ),
  mutant(
    "planned: memory is written before all is checked",
    PREPARED,
    "    const plans = planWork(work, context.capabilities, before?.plans);\n    const memory = this.#freeMemory();\n    memory.begin();",
    '    const memory = this.#freeMemory();\n    memory.begin();\n    memory.words("storage", "early", crypto.getRandomValues(new Uint32Array(64)));\n    const plans = planWork(work, context.capabilities, before?.plans);',
    RUNS,
    "/too large for the device.*webgpu/",
  ),
  mutant(
    "planned: the lse of states has too little room",
    "src/webgpu/attention.ts",
    'memory.scratch("partial lse", states * 4)',
    'memory.scratch("partial lse", states)',
    PAGED,
    "/decode: long requests, split.*webgpu/",
  ),
  mutant(
    "planned: turns go when a longer request needs more",
    "src/webgpu/rope_tables.ts",
    "if (known) this.#outgrown.push(known.buffer);",
    "known?.buffer.destroy();",
    PLANNED,
    "/longer request elsewhere.*webgpu/",
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
    "planned.memory.rewrite(tables, tableWords(problem, stretches));",
    "void [tables, stretches];",
    PLANNED,
    "/growing lengths.*webgpu/",
  ),
  mutant(
    "planned: stretches end where they did",
    "src/webgpu/decode_tables.ts",
    "stretches.push({ request, first, end: length, outRow });",
    "stretches.push(stretch);",
    PLANNED,
    "/growing lengths.*webgpu/",
  ),
  mutant(
    "planned: bind groups of other operands",
    "src/webgpu/buffers.ts",
    "`${numberOf(this.buffer)},${this.byteOffset},",
    "`${this.byteOffset},",
    PLANNED,
    "/other tensors.*webgpu/",
  ),
  mutant(
    "planned: a new plan overwrites what a run reads",
    PREPARED,
    "return memory && !this.#isUsed(memory) ? memory",
    "return memory ? memory",
    PLANNED,
    "/waits for kernels.*webgpu/",
  ),
  mutant(
    "planned: new lengths overwrite what a run reads",
    PREPARED,
    "const moved = !this.#isUsed(planned.memory) && planned.decode",
    "const moved = planned.decode",
    PLANNED,
    "/waits for kernels.*webgpu/",
  ),
  mutant(
    "planned: a failed submission proves that all is well",
    PREPARED,
    "if (known?.isProven && ",
    "if (known && ",
    PLANNED,
    "/its owner destroys.*webgpu/",
  ),
  mutant(
    "planned: buffers of the caller's are taken for ours",
    PREPARED,
    " && isOurs(operands)",
    "",
    PLANNED,
    "/its owner destroys.*webgpu/",
  ),
  mutant(
    "planned: words that are as many are taken for the same",
    "src/webgpu/memory.ts",
    "if (a[i] !== b[i]) return false;",
    "",
    PLANNED,
    "/with other pages or options.*webgpu/",
  ),
  mutant(
    "planned: what an update wrote is forgotten",
    "src/webgpu/memory.ts",
    "this.#words[this.#buffers.indexOf(buffer as GPUBuffer)] = words;",
    "",
    PLANNED,
    "/has the plan of its call.*webgpu/",
  ),
  mutant(
    "planned: a plan has the kernels of the plan before",
    "src/webgpu/templates.ts",
    "template.kernel.name === kernel.name",
    "true",
    PLANNED,
    "/with other pages or options.*webgpu/",
  ),
  mutant(
    "planned: a plan has the bind groups of other memory",
    "src/webgpu/templates.ts",
    "a.buffer === b.buffer",
    "true",
    STEPS,
    "/keeps the bind groups.*webgpu/",
  ),
  mutant(
    "planned: bind groups are made for every plan",
    PREPARED,
    "const isAlike = before?.kernels.ready",
    "const isAlike = null && before?.kernels.ready",
    STEPS,
    "/keeps the bind groups.*webgpu/",
  ),
  mutant(
    "planned: runs wait for kernels that are there",
    PREPARED,
    "planned.kernels.ready ?? await",
    "await",
    STEPS,
    "/in the order of calls.*webgpu/",
  ),
  mutant(
    "planned: every update stays on the heap",
    "src/webgpu/memory.ts",
    "this.#words[this.#buffers.indexOf(buffer as GPUBuffer)] = words;",
    "this.#words.push(words);",
    STEPS,
    "/on the heap.*webgpu/",
  ),
  mutant(
    "planned: sizes and options are those of the plan before",
    "src/plan_memory.ts",
    "if (!isSame(values[i], plan[names[i] as never])) return false;",
    "",
    PROBLEM,
  ),
  mutant(
    "planned: lists of the caller's are not copied",
    "src/plan_memory.ts",
    "return isList(value) ? entriesOf(value) : isObject(value) ? { ...value } : value;",
    "return value;",
    PROBLEM,
  ),
  mutant(
    "planned: lists are the same whatever they hold",
    "src/plan_memory.ts",
    "Object.keys(known).every((name) => Object.is(known[name as never], value[name as never]))",
    "true",
    PROBLEM,
  ),
  mutant(
    "planned: a kernel serves problems of other options",
    "src/attention_problem.ts",
    "!isAlike(a[field], b[field])) return false;",
    "false) return false;",
    DECODE_PLAN,
  ),
  mutant(
    "planned: a layout serves whatever its tuning",
    "src/webgpu/decode_shape.ts",
    "if (before && DECODE_TUNING_NAMES.every((name) => before.tuning[name] === tuning[name])) {",
    "if (before) {",
    DECODE_PLAN,
  ),
  mutant(
    "planned: a kernel that writes states serves whole requests",
    "src/webgpu/decode_plan.ts",
    " && (alike.split !== null) === isSplit",
    "",
    DECODE_PLAN,
  ),
  mutant(
    "planned: the caller's encoder is left empty",
    PREPARED,
    "recordPass(context.device, encoder, bind(), {});",
    "bind();",
    PLANNED,
    "/recorded in an encoder.*webgpu/",
  ),
  mutant(
    "planned: buffers are made anew",
    "src/webgpu/memory.ts",
    "known.usage === usage && known.size >= byteLength",
    "known.usage === usage && known.size < 0",
    STEPS,
    "/keeps the bind groups.*webgpu/",
  ),
];
