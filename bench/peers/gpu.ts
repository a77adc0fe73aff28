/**
 * What else computes attention on this GPU: measured beside us where it is installed, or recorded on
 * the same kind of card.
 *
 * @module
 */

import { caseName, type GpuCase } from "../gpu/family.ts";
import type { BenchLine } from "../results.ts";
import { flashInferLines } from "./flashinfer.ts";
import { benchOnnxAttention } from "./ort_webgpu.ts";
import { benchTorch } from "./torch.ts";

/** The peers' lines, printed beside `ours`. */
export async function gpuPeerLines(
  adapter: string,
  cases: readonly GpuCase[],
  ours: readonly BenchLine[],
  filter: string,
): Promise<BenchLine[]> {
  // The peers have no FP8 cache, and ONNX Runtime's operator no batch of mixed lengths.
  const shapes = cases
    .filter((wanted) => wanted.dtype === "float16" && isForOnnx(wanted))
    .map(({ shape }) => shape);
  const measured = [...await benchOnnxAttention(shapes), ...await benchTorch()];
  const recorded = adapter.includes("H200") ? flashInferLines() : [];
  const lines = [...measured, ...recorded].filter((line) => nameOf(line).includes(filter));
  for (const line of lines) {
    if (line.recorded === undefined) console.log(`  ${describePeer(line, ours)}`);
  }
  return lines;
}

/** Decode, and of prefill, which takes it long, two prompts at two group sizes. */
export function isForOnnx({ family, shape: s }: GpuCase): boolean {
  if (family === "decode") return s.kvTokens === undefined;
  const isPlain = s.headDim === 128 && s.windowLeft === undefined && s.pageSize === undefined &&
    s.qoLen === s.kvLen;
  return family === "prefill" && isPlain && s.qoLen <= 4096 && [24, 32].includes(s.numQoHeads);
}

function describePeer(line: BenchLine, ours: readonly BenchLine[]): string {
  const name = nameOf(line);
  const own = ours.find((other) => nameOf(other) === name);
  const ratio = own ? `, ${(line.time.median / own.time.median).toFixed(2)} x our time` : "";
  const time = line.time.median.toFixed(1).padStart(9);
  return `${`${line.library} ${name}`.padEnd(68)} ${time} us${ratio}`;
}

function nameOf({ family, shape, dtype }: BenchLine): string {
  return caseName({ family, shape: shape!, dtype });
}
