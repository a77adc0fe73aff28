/** Calibrations that do not fit: each is refused by its typed error. */

import assert from "node:assert/strict";
import { calibrate, type CalibrateOptions, type CalibrationData } from "@kvasir/attention";
import { type BackendName, onEachBackend } from "../support/device.ts";
import { assertFails, type ErrorKind } from "../support/failures.ts";

const BOTH: readonly BackendName[] = ["wasm", "webgpu"];
const DTYPE = "float8_e4m3fn";
const VALUES = new Float32Array(24);

const BAD_OPTIONS: readonly [unknown, ErrorKind, string, RegExp][] = [
  [undefined, "OptionError", "options", /an object/],
  [{}, "DTypeError", "options.dtype", /got undefined.*float8_e5m2/],
  [{ dtype: "float16" }, "DTypeError", "options.dtype", /got "float16"/],
  [{ dtype: DTYPE, percentil: 5 }, "OptionError", "options.percentil", /percentile/],
  [{ dtype: DTYPE, granularity: "token" }, "OptionError", "options.granularity", /"head"/],
  [{ dtype: DTYPE, kvLayout: "HDN" }, "OptionError", "options.kvLayout", /"NHD" or "HND"/],
  [{ dtype: DTYPE, headAxis: 0.5 }, "OptionError", "options.headAxis", /an integer/],
  [{ dtype: DTYPE, headAxis: 1, kvLayout: "NHD" }, "OptionError", "options.headAxis", /one of/],
  ...[0, -1, 100.1, NaN, "99", null].map((percentile) =>
    [{ dtype: DTYPE, percentile }, "OptionError", "options.percentile", /number/] as const
  ).map((row) => [...row] as [unknown, ErrorKind, string, RegExp]),
  ...[5, "2", [1.5], [-2, 4], [-1, -1], [null]].map((shape) =>
    [{ dtype: DTYPE, shape }, "OptionError", "options.shape", /-1/] as [
      unknown,
      ErrorKind,
      string,
      RegExp,
    ]
  ),
  [{ dtype: DTYPE, granularity: "head" }, "OptionError", "options.shape", /got none/],
  [{ dtype: DTYPE, shape: [-1, 7] }, "ShapeError", "data", /got 24 values/],
  [{ dtype: DTYPE, shape: [5, 5] }, "ShapeError", "data", /\[5, 5\]/],
  [{ dtype: DTYPE, shape: [-1, 0] }, "ShapeError", "data", /\[-1, 0\]/],
  [{ dtype: DTYPE, granularity: "head", shape: [24] }, "ShapeError", "data", /a dim -2/],
  [
    { dtype: DTYPE, granularity: "head", shape: [4, 6], kvLayout: "HND" },
    "ShapeError",
    "data",
    /a dim -3/,
  ],
  [
    { dtype: DTYPE, granularity: "head", shape: [4, 6], headAxis: 2 },
    "ShapeError",
    "data",
    /a dim 2/,
  ],
];

Deno.test("calibrate() refuses options that do not fit", async () => {
  for (const [options, kind, subject, message] of BAD_OPTIONS) {
    const work = () => calibrate(VALUES, options as CalibrateOptions);
    await assertFails(JSON.stringify(options) ?? "none", work, kind, subject, message);
  }
});

Deno.test("calibrate() refuses what is no data", async () => {
  const refused: [unknown, string][] = [
    [undefined, "data"],
    [null, "data"],
    ["text", "data"],
    [5, "data"],
    [{}, "data"],
    [new Float64Array(3), "data"],
    [new Uint8Array(3), "data"],
    [[], "data"],
    [[1, 2, 3], "data, batch 0"],
    [[VALUES, null], "data, batch 1"],
    [[VALUES, [VALUES]], "data, batch 1"],
  ];
  for (const [data, subject] of refused) {
    const work = () => calibrate(data as CalibrationData, { dtype: DTYPE });
    await assertFails(String(subject), work, "OptionError", subject, /a tensor, a Float32Array/);
  }
});

Deno.test("calibrate() hands on what an iterable throws, and ends the iterable it refuses", async () => {
  function* failing() {
    yield VALUES;
    throw new RangeError("no more");
  }
  await assert.rejects(calibrate(failing(), { dtype: DTYPE }), RangeError);
  let ended = false;
  function* bad() {
    try {
      yield 5 as unknown as Float32Array;
    } finally {
      ended = true;
    }
  }
  const work = () => calibrate(bad(), { dtype: DTYPE });
  await assertFails("a number", work, "OptionError", "data, batch 0");
  assert.ok(ended);
});

onEachBackend("calibrate() refuses batches of other heads, and dead tensors", async (device) => {
  using four = device.empty([2, 4, 8], "float16");
  using three = device.empty([2, 3, 8], "float16");
  const options = { dtype: DTYPE, granularity: "head" } as const;
  const mixed = () => calibrate([four, three], options);
  await assertFails("3 heads", mixed, "ShapeError", "data, batch 1", /3 heads.*expected 4 heads/);
  using flat = device.empty([16], "float16");
  await assertFails("flat", () => calibrate(flat, options), "ShapeError", "data", /the heads/);
  const dead = device.empty([2, 4, 8], "float16");
  dead.destroy();
  await assertFails("dead", () => calibrate(dead, options), "DestroyedError", "tensor");
}, BOTH);
