/**
 * Planned attention on the WASM backend, which has nothing to keep: tables are as quickly written as
 * found again.
 *
 * @module
 */

import { type AttentionProblem, rowsOf } from "../attention_problem.ts";
import type {
  AttentionOperands,
  Backend,
  PlannedWork,
  PreparedAttention,
  PreparedRun,
  Storage,
} from "../backend.ts";

/** Planned attention on the CPU. */
export class PreparedOnCpu implements PreparedAttention {
  readonly #backend: Backend;
  #work: PlannedWork = { levels: [], merged: null };

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  plan(work: PlannedWork): void {
    this.#work = work;
  }

  update(problem: AttentionProblem): void {
    this.#work = { levels: [problem], merged: null };
  }

  begin(): PreparedRun {
    const work = this.#work;
    const { merged, levels: [problem] } = work;
    return {
      run: (operands) =>
        merged
          ? this.#cascade({ ...work, merged }, operands)
          : this.#backend.attend(problem, operands),
      end() {},
    };
  }

  release(): void {}

  /** Computes levels one after another, and merges each into those before. */
  async #cascade(
    { levels, merged }: PlannedWork & { readonly merged: NonNullable<PlannedWork["merged"]> },
    operands: AttentionOperands,
  ): Promise<void> {
    const backend = this.#backend;
    const { numQoHeads, headDimV } = levels[0];
    const numRows = rowsOf(levels[0]);
    const made: Storage[] = [];
    const state = () => {
      const [out, lse] = [numQoHeads * headDimV, numQoHeads].map((size) => {
        const storage = backend.allocate(4 * numRows * size, "a state");
        made.push(storage);
        return storage;
      });
      return { out, lse };
    };
    try {
      let joined = state();
      await backend.attend(levels[0], { ...operands, ...joined });
      for (let level = 1; level < levels.length; level++) {
        const next = state();
        await backend.attend(levels[level], { ...operands, ...next });
        const isLast = level === levels.length - 1;
        // A merge gives lse in base 2 always.
        const result = isLast ? { out: operands.out, lse: operands.lse ?? state().lse } : state();
        await backend.merge({
          numRows,
          numHeads: numQoHeads,
          headDim: headDimV,
          vDtype: "float32",
          outDtype: isLast ? merged.outDtype : "float32",
          rows: Uint32Array.from({ length: 4 * numRows }, (_, j) => j % 2 ? 1 : j >> 2),
        }, { vA: joined.out, sA: joined.lse, vB: next.out, sB: next.lse, ...result });
        joined = result;
      }
      if (operands.lse && merged.lseScale !== 1) await this.#scale(operands.lse, merged.lseScale);
    } finally {
      for (const storage of made) storage.release();
    }
  }

  async #scale(storage: Storage, factor: number): Promise<void> {
    const bytes = await this.#backend.read(storage);
    const values = new Float32Array(bytes.buffer).map((value) => value * factor);
    this.#backend.write(storage, 0, new Uint8Array(values.buffer));
  }
}
