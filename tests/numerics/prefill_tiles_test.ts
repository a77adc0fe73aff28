/**
 * The kernel's tiles: those of large GPUs, which software adapters do not choose by themselves, and odd
 * ones, against what the device's own choice gives.
 */

import assert from "node:assert/strict";
import type { Device } from "@kvasir/attention";
import type { AttentionProblem } from "../../src/attention_problem.ts";
import type { KvasirDevice } from "../../src/device.ts";
import { singlePrefill } from "../../src/prefill_problem.ts";
import type { WebGpuBackend } from "../../src/webgpu/backend.ts";
import { submit } from "../../src/webgpu/dispatch.ts";
import { attentionDispatches, compileAttention } from "../../src/webgpu/attention.ts";
import { planPrefill } from "../../src/webgpu/prefill_plan.ts";
import type { PrefillTuning } from "../../src/webgpu/prefill_tuning.ts";
import { onEachBackend } from "../support/device.ts";
import { checkAnswer, expectedOf } from "../support/gate.ts";
import { makePrefill, type PrefillSpec } from "../support/prefill.ts";

const SPEC: PrefillSpec = {
  qoLen: 43,
  kvLen: 150,
  heads: [6, 2],
  headDim: 64,
  causal: true,
  qDtype: "float16",
  kvDtype: "float16",
  outDtype: "float32",
};

/** @param pageSize Where given, the cache is looked at as pages, which follow each other. */
async function runTiles(
  device: Device,
  spec: PrefillSpec,
  tuning: Partial<PrefillTuning>,
  pageSize?: number,
) {
  const inputs = makePrefill(spec);
  const { problem: p } = inputs;
  const engine = (device as KvasirDevice).engine as WebGpuBackend;
  const { problem: whole } = singlePrefill(
    { shape: [p.numQueries!, p.numQoHeads, p.headDim], dtype: inputs.q.dtype },
    { shape: [p.maxKvLen, p.numKvHeads, p.headDim], dtype: inputs.k.dtype },
    { shape: [p.maxKvLen, p.numKvHeads, p.headDim], dtype: inputs.v.dtype },
    { causal: p.causal, outDtype: inputs.outDtype, windowLeft: p.windowLeft },
  );
  const problem = pageSize === undefined ? whole : inPages(whole, pageSize, p.maxKvLen);
  const stored = ([q, bytes]: [string, Uint8Array]) => {
    const storage = engine.allocate(bytes.length, q);
    engine.write(storage, 0, bytes);
    return storage;
  };
  const rows = p.numQueries! * p.numQoHeads;
  const operands = {
    q: stored(["q", inputs.q.bytes]),
    k: stored(["k", inputs.k.bytes]),
    v: stored(["v", inputs.v.bytes]),
    out: engine.allocate(rows * p.headDim * 4, "out"),
    lse: engine.allocate(rows * 4, "lse"),
  };
  const plan = planPrefill(problem, engine.capabilities, tuning);
  const kernels = await compileAttention(engine, plan);
  await submit(
    engine,
    "prefill",
    (temporary) => attentionDispatches(engine, plan, kernels, problem, operands, temporary),
  );
  const out = new Float32Array((await engine.read(operands.out)).buffer);
  const lse = new Float32Array((await engine.read(operands.lse)).buffer);
  for (const storage of Object.values(operands)) storage.release();
  checkAnswer(plan.kernel.name, { out, lse }, expectedOf(p), p, inputs.outDtype);
  return plan;
}

function inPages(problem: AttentionProblem, pageSize: number, kvLen: number): AttentionProblem {
  const strides = (of: AttentionProblem["kStrides"]) => ({ ...of, page: pageSize * of.token });
  return {
    ...problem,
    pageSize,
    pageTable: Uint32Array.from({ length: kvLen / pageSize }, (_, page) => page),
    kStrides: strides(problem.kStrides),
    vStrides: strides(problem.vStrides),
  };
}

async function checkTiles(device: Device, tunings: readonly Partial<PrefillTuning>[]) {
  for (const tuning of tunings) {
    const plan = await runTiles(device, SPEC, tuning);
    assert.equal(plan.shape.constants.ROW_LANES, tuning.rowLanes);
    // Few queries and many keys are split.
    await runTiles(device, { ...SPEC, windowLeft: 40, qoLen: 9, kvLen: 1000 }, tuning);
    await runTiles(device, SPEC, tuning, 5);
  }
}

onEachBackend(
  "prefill: tiles of a large GPU",
  (device) =>
    checkTiles(device, [
      // With chunks and stages that fit 32 KiB.
      { rowLanes: 16, keyLanes: 16, laneRows: 8, laneKeys: 8, run: 2, unroll: 2, chunkQuads: 2 },
      { rowLanes: 8, keyLanes: 32, laneRows: 8, laneKeys: 8, run: 2, chunkQuads: 1, stageQuads: 1 },
    ]),
  ["webgpu"],
);

// The other shuffles are tested under Tint by this one alone: its adapter has subgroups of 4, and takes
// minutes to compile larger tiles.
onEachBackend(
  "prefill: tiles of small subgroups",
  (device) =>
    checkTiles(device, [{
      rowLanes: 8,
      keyLanes: 4,
      laneRows: 4,
      laneKeys: 4,
      run: 2,
      stageQuads: 1,
    }]),
  ["webgpu"],
);

onEachBackend(
  "prefill: tiles with runs of keys of every length",
  (device) =>
    checkTiles(device, [
      { rowLanes: 4, keyLanes: 8, laneRows: 4, laneKeys: 8, run: 4 },
      { rowLanes: 2, keyLanes: 8, laneRows: 8, laneKeys: 4, run: 1, stageQuads: 1 },
    ]),
  ["webgpu"],
);
