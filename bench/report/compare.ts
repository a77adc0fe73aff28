/**
 * Which line of one run is the same measurement as which line of another.
 *
 * @module
 */

import type { BenchLine, BenchResult } from "../results.ts";
import { shapeText, shortDtype } from "./format.ts";

/** Two runs of one machine agree within this; a smaller change says nothing. */
export const REPEATABILITY = 0.03;

/** One measurement in both runs. */
export interface Change {
  /** Unique among the changes. */
  readonly label: string;
  readonly before: BenchLine;
  readonly after: BenchLine;
  /** How many times as fast it became; below 1 it became slower. */
  readonly ratio: number;
  readonly verdict: "faster" | "slower" | "same";
}

/** What two runs have in common, and what only one of them has. */
export interface Comparison {
  readonly changes: readonly Change[];
  readonly onlyBefore: readonly BenchLine[];
  readonly onlyAfter: readonly BenchLine[];
}

/** Matches by family, library, shape and dtype. Recorded figures were not measured in either run. */
export function compare(before: BenchResult, after: BenchResult): Comparison {
  const olds = byKey(before.lines);
  const news = byKey(after.lines);
  const pairs: [BenchLine, BenchLine][] = [];
  const onlyBefore: BenchLine[] = [];
  const onlyAfter: BenchLine[] = [];
  for (const key of new Set([...news.keys(), ...olds.keys()])) {
    let left = olds.get(key) ?? [];
    let right = news.get(key) ?? [];
    // Several variants of one problem are told apart by their kernel's name.
    for (const line of right.slice()) {
      const twin = left.find(({ kernel }) => kernel === line.kernel);
      if (twin === undefined) continue;
      pairs.push([twin, line]);
      left = left.filter((other) => other !== twin);
      right = right.filter((other) => other !== line);
    }
    // What is left alone on both sides is the same problem under a renamed kernel.
    if (left.length === 1 && right.length === 1) pairs.push([left.pop()!, right.pop()!]);
    onlyBefore.push(...left);
    onlyAfter.push(...right);
  }
  const labels = uniqueLabels(pairs.map(([, line]) => line));
  const changes = pairs.map(([old, line], i) => {
    const ratio = old.time.median / line.time.median;
    return { label: labels[i], before: old, after: line, ratio, verdict: verdictOf(ratio) };
  });
  return { changes, onlyBefore, onlyAfter };
}

function verdictOf(ratio: number): Change["verdict"] {
  if (ratio > 1 + REPEATABILITY) return "faster";
  return ratio < 1 / (1 + REPEATABILITY) ? "slower" : "same";
}

function byKey(lines: readonly BenchLine[]): Map<string, BenchLine[]> {
  const groups = new Map<string, BenchLine[]>();
  for (const line of lines) {
    if (line.recorded !== undefined) continue;
    const { shape } = line;
    // Field by field: the order of an object's fields is not part of a shape.
    const sizes = shape && [
      shape.batch,
      shape.qoLen,
      shape.kvLen,
      shape.kvTokens ?? null,
      shape.numQoHeads,
      shape.numKvHeads,
      shape.headDim,
    ];
    const key = JSON.stringify([line.family, line.library, sizes, line.dtype]);
    groups.set(key, [...groups.get(key) ?? [], line]);
  }
  return groups;
}

/** What a line measures, in one line; its kernel is left out. */
export function lineLabel({ family, library, dtype, shape }: BenchLine): string {
  const what = `${family}, ${library}, ${shortDtype(dtype)}`;
  return shape === null ? what : `${what}: ${shapeText(shape, family)}`;
}

/** An axis merges what has one name, so names that occur twice get their kernel and a number. */
function uniqueLabels(lines: readonly BenchLine[]): string[] {
  const plain = lines.map(lineLabel);
  const full = lines.map(({ kernel }, i) =>
    plain.indexOf(plain[i]) === plain.lastIndexOf(plain[i]) ? plain[i] : `${plain[i]} [${kernel}]`
  );
  return full.map((label, i) => full.indexOf(label) === i ? label : `${label} (${i + 1})`);
}
