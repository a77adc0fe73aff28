/**
 * The bench's command line. Pure; throws a {@linkcode BenchError} for what it does not understand.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { BenchError } from "./bench_error.ts";
import { parseSweep, type SweepLists } from "./gpu/sweep.ts";

/** The parts of the bench. */
export const PARTS = ["gpu", "codec", "cpu"] as const;
export type Part = typeof PARTS[number];

/** What only the part gpu has. */
const OF_GPU = ["sweep", "variants", "profile"] as const;

/** What the command line asks for. */
export interface BenchArguments {
  readonly parts: readonly Part[];
  readonly quick: boolean;
  readonly filter: string;
  readonly json: string | null;
  readonly profile: string | null;
  readonly machine: string;
  readonly peers: boolean;
  readonly sweep: SweepLists | null;
  readonly variants: string | null;
}

const FLAGS = ["quick", "no-peers"];
const WITH_VALUE = ["filter", "json", "machine", "profile", "sweep", "variants"];

/** Reads the arguments after the program's name. */
export function readArguments(args: readonly string[]): BenchArguments {
  const flags = new Set<string>();
  const values = new Map<string, string[]>();
  const parts: Part[] = [];
  for (const token of tokensOf(args)) {
    if (token.kind === "positional") {
      const part = PARTS.find((name) => name === token.value);
      if (!part) throw new BenchError(`${token.value} is unknown; there are: ${PARTS.join(", ")}`);
      parts.push(part);
    } else if (token.kind === "option") {
      const { name, rawName, value } = token;
      if (FLAGS.includes(name)) {
        if (value !== undefined) throw new BenchError(`${rawName} takes no value`);
        flags.add(name);
      } else if (WITH_VALUE.includes(name)) {
        if (!value) throw new BenchError(`${rawName} needs a value`);
        values.set(name, [...values.get(name) ?? [], value]);
      } else {
        const known = [...FLAGS, ...WITH_VALUE].map((known) => `--${known}`).join(", ");
        throw new BenchError(`${rawName} is unknown; there are: ${known}`);
      }
    }
  }
  const last = (name: string) => values.get(name)?.pop() ?? null;
  const sweep = values.get("sweep");
  const ofGpu = OF_GPU.some((name) => values.has(name));
  const found: BenchArguments = {
    parts: parts.length > 0 ? parts : ofGpu ? ["gpu"] : PARTS,
    quick: flags.has("quick"),
    peers: !flags.has("no-peers"),
    filter: last("filter") ?? "",
    json: last("json"),
    profile: last("profile"),
    machine: last("machine") ?? "",
    sweep: sweep ? parseSweep(sweep) : null,
    variants: last("variants"),
  };
  checkTogether(found);
  return found;
}

function checkTogether(found: BenchArguments): void {
  const { parts, profile } = found;
  for (const name of OF_GPU) {
    if (found[name] === null || (parts.length === 1 && parts[0] === "gpu")) continue;
    throw new BenchError(`--${name} is for the part gpu alone`);
  }
  if (profile === null) return;
  for (const name of ["sweep", "variants", "json"] as const) {
    if (found[name] === null) continue;
    throw new BenchError(`--profile traces instead of timing: it goes with no --${name}`);
  }
}

function tokensOf(args: readonly string[]) {
  // Not strict, since parseArgs' own messages are several sentences long.
  return parseArgs({
    args: [...args],
    options: {
      ...Object.fromEntries(FLAGS.map((name) => [name, { type: "boolean" as const }])),
      ...Object.fromEntries(
        WITH_VALUE.map((name) => [name, { type: "string" as const, multiple: true }]),
      ),
    },
    allowPositionals: true,
    strict: false,
    tokens: true,
  }).tokens;
}
