/**
 * Which of the ways to decode an FP8 format a device takes, from what its self-test and its times say.
 * Pure.
 *
 * @module
 */

/** The way that a device decodes a format. */
export interface Fp8Decoding {
  /** The shader module, below shaders/; null where no way is exact, so that none is used. */
  readonly module: string | null;
  /** The best that gives NaN for NaN codes by itself, for queries and states; null where none does. */
  readonly unmarked: string | null;
  /** Why this one, or why none. */
  readonly reason: string;
}

/** What is known of one way. */
export interface WayTrial {
  /** The shader module, below shaders/. */
  readonly module: string;
  /** Whether its NaN codes must be found beside it. */
  readonly nanMarks: boolean;
  /** What is wrong with it, such as `"gets 2 codes wrong (first: 127)"`; null where it is exact. */
  readonly fault: string | null;
  /** Codes that it decodes in a nanosecond, its NaN codes looked for; 0 if not timed. */
  readonly codesPerNanosecond: number;
}

/** How much faster a way must be than one before it: noise must not turn the choice over. */
export const MARGIN = 1.1;

/**
 * Chooses among the ways of a format.
 *
 * @param trials The one that is expected to be fastest first.
 * @param untimed Why they were not timed; null where every exact way was.
 */
export function chooseWay(trials: readonly WayTrial[], untimed: string | null): Fp8Decoding {
  const exact = trials.filter(({ fault }) => fault === null);
  const faults = trials.filter(({ fault }) => fault !== null);
  const chosen = fastest(exact);
  return {
    module: chosen?.module ?? null,
    unmarked: fastest(exact.filter(({ nanMarks }) => !nanMarks))?.module ?? null,
    reason: [
      ...(chosen ? ["all 256 codes are exact", ...reasonsFor(chosen, exact, untimed)] : []),
      ...faults.map(({ module, fault }) => `${module} ${fault}`),
    ].join("; "),
  };
}

/** The first that no later one beats by the margin; the first of all where there are no times. */
function fastest(ways: readonly WayTrial[]): WayTrial | null {
  let best: WayTrial | null = null;
  for (const way of ways) {
    if (!best || way.codesPerNanosecond > best.codesPerNanosecond * MARGIN) best = way;
  }
  return best;
}

function reasonsFor(
  chosen: WayTrial,
  exact: readonly WayTrial[],
  untimed: string | null,
): readonly string[] {
  const losers = exact.filter((way) => way !== chosen);
  if (losers.length === 0) return [];
  if (untimed !== null) {
    const names = losers.map(({ module }) => module).join(" and ");
    return [`by order before ${names}, not by time: ${untimed}`];
  }
  const speed = (way: WayTrial) => Number(way.codesPerNanosecond.toPrecision(3));
  return [
    `${speed(chosen)} codes/ns`,
    ...losers.map((way) =>
      `${way.module} ${speed(way)}` + (speed(way) > speed(chosen) ? ", too little to matter" : "")
    ),
  ];
}
