/**
 * Cascades: from what `plan` is given to levels of attention over one paged cache. Pure.
 *
 * @module
 */

import { PLANNED_DECODE_OPTIONS } from "./attention_options.ts";
import { OptionError } from "./errors.ts";
import { checkBoolean, checkNames } from "./option_checks.ts";
import type { KvLayout } from "./options.ts";
import type { CascadePlan } from "./planned_options.ts";
import { checkLevel, checkPagedSettings, type PagedPlan, pagedPlan } from "./paged_problem.ts";
import { show } from "./shape.ts";

const LEVEL_NAMES = ["qoIndptr", "pagedKvIndptr", "pagedKvIndices", "pagedKvLastPageLen"];
/** Positions and windows count a request's keys, of which a level knows its own only. */
const POSITIONAL = ["posEncodingMode", "ropeScale", "ropeTheta", "windowLeft"];
const PLAN_NAMES = [
  "levels",
  "numQoHeads",
  "numKvHeads",
  "headDim",
  "pageSize",
  "qDtype",
  "kvDtype",
  "causal",
  ...PLANNED_DECODE_OPTIONS.filter((name) => !POSITIONAL.includes(name)),
];

/** A cascade that is known to be right: the levels' results are float32 states. */
export interface CheckedCascade {
  readonly levels: readonly PagedPlan[];
  /** What the merged results are. */
  readonly merged: Pick<PagedPlan["problem"], "outDtype" | "lseScale">;
}

/** Checks what `plan` is given. Throws `OptionError`. */
export function cascade(plan: CascadePlan, layout: KvLayout, numLevels: number): CheckedCascade {
  checkNames(plan, PLAN_NAMES);
  const { sizes, settings } = checkPagedSettings(plan);
  const causal = checkBoolean("options.causal", plan.causal ?? false);
  const { levels } = plan;
  if (!Array.isArray(levels) || levels.length !== numLevels) {
    throw new OptionError("options.levels", {
      got: Array.isArray(levels) ? `${levels.length} levels` : show(levels),
      expected: `an array of ${numLevels}, as the constructor was told`,
      hint: "A level is { qoIndptr, pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen }.",
    });
  }
  const checked = levels.map((level, i) => {
    checkNames(level, LEVEL_NAMES);
    return checkLevel(level, sizes.pageSize, `options.levels[${i}]`);
  });
  const rows = checked.map(({ qoIndptr }) => qoIndptr[qoIndptr.length - 1]);
  const other = rows.findIndex((count) => count !== rows[0]);
  if (other > 0) {
    throw new OptionError(`options.levels[${other}].qoIndptr`, {
      got: `${rows[other]} rows of q`,
      expected: `${rows[0]}, as level 0 has`,
      hint: "Every level says of all queries which pages they share.",
    });
  }
  const { outDtype, lseScale } = settings;
  return {
    levels: checked.map((level, i) => {
      const isLast = i === numLevels - 1;
      if (numLevels === 1) {
        const seen = { causal, mask: null, variant: null };
        return pagedPlan(sizes, settings, seen, { layout, ...level });
      }
      // A sink joins the denominator once.
      const own = { ...settings, outDtype: "float32", lseScale: 1 } as const;
      return pagedPlan(
        sizes,
        isLast ? own : { ...own, sinks: null },
        { causal: causal && isLast, mask: null, variant: null },
        { layout, ...level },
      );
    }),
    merged: { outDtype, lseScale },
  };
}
