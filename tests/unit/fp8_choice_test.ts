/** The choice among ways to decode FP8, from their tests and times: pure, so that noise can be played. */

import assert from "node:assert/strict";
import { chooseWay, MARGIN, type WayTrial } from "../../src/webgpu/fp8_choice.ts";
import { clockStep } from "../../src/webgpu/fp8_timing.ts";

const HALVES: WayTrial = { module: "halves", nanMarks: true, fault: null, codesPerNanosecond: 100 };
const BITS: WayTrial = { module: "bits", nanMarks: false, fault: null, codesPerNanosecond: 40 };
const TABLE: WayTrial = { module: "table", nanMarks: false, fault: null, codesPerNanosecond: 20 };
const WRONG = { fault: "gets 2 codes wrong (first: 3)", codesPerNanosecond: 0 };

/** The ways with other speeds. */
function timed(halves: number, bits: number, table: number): WayTrial[] {
  return [HALVES, BITS, TABLE].map((way, i) => ({
    ...way,
    codesPerNanosecond: [halves, bits, table][i],
  }));
}

Deno.test("chooseWay() takes the fastest exact way, and names the losers with their speeds", () => {
  assert.deepEqual(chooseWay(timed(10, 40.128, 20), null), {
    module: "bits",
    unmarked: "bits",
    reason: "all 256 codes are exact; 40.1 codes/ns; halves 10; table 20",
  });
  assert.deepEqual(chooseWay(timed(10, 20, 1234.5), null), {
    module: "table",
    unmarked: "table",
    reason: "all 256 codes are exact; 1230 codes/ns; halves 10; bits 20",
  });
});

Deno.test("chooseWay() keeps the first way unless another is clearly faster", () => {
  for (const noise of [0.5, 1, 1.05, MARGIN]) {
    assert.equal(chooseWay(timed(100, 100 * noise, 100 * noise), null).module, "halves");
  }
  const { reason } = chooseWay(timed(100, 105, 20), null);
  assert.match(reason, /100 codes\/ns; bits 105, too little to matter; table 20$/);
  assert.equal(chooseWay(timed(100, 111, 20), null).module, "bits");
  // Each step counts from the best so far.
  assert.equal(chooseWay(timed(100, 111, 121), null).module, "bits");
  assert.equal(chooseWay(timed(100, 111, 123), null).module, "table");
});

Deno.test("chooseWay() trusts no way that is wrong, however fast", () => {
  const choice = chooseWay([{ ...HALVES, ...WRONG, codesPerNanosecond: 1000 }, BITS, TABLE], null);
  assert.deepEqual(choice, {
    module: "bits",
    unmarked: "bits",
    reason: "all 256 codes are exact; 40 codes/ns; table 20; halves gets 2 codes wrong (first: 3)",
  });
  assert.deepEqual(chooseWay([{ ...HALVES, ...WRONG }, { ...BITS, ...WRONG }], null), {
    module: null,
    unmarked: null,
    reason: "halves gets 2 codes wrong (first: 3); bits gets 2 codes wrong (first: 3)",
  });
});

Deno.test("chooseWay() takes another way for what must give NaN by itself", () => {
  assert.equal(chooseWay([HALVES, BITS, TABLE], null).unmarked, "bits");
  assert.equal(chooseWay([HALVES, { ...BITS, ...WRONG }, TABLE], null).unmarked, "table");
  const none = chooseWay([HALVES, { ...BITS, ...WRONG }], null);
  assert.deepEqual([none.module, none.unmarked], ["halves", null]);
});

Deno.test("chooseWay() goes by order where nothing was timed, and says why", () => {
  const ways = timed(0, 0, 0);
  assert.deepEqual(chooseWay(ways, "no clock"), {
    module: "halves",
    unmarked: "bits",
    reason: "all 256 codes are exact; by order before bits and table, not by time: no clock",
  });
  const [halves, ...others] = ways;
  const { module, reason } = chooseWay([{ ...halves, ...WRONG }, ...others], "no clock");
  assert.equal(module, "bits");
  assert.match(reason, /by order before table.*no clock; halves gets 2 codes wrong/);
});

Deno.test("clockStep() finds the steps of a clock", () => {
  assert.equal(clockStep(BigUint64Array.of(7n, 12n, 100n)), 1);
  assert.equal(clockStep(BigUint64Array.of(3n << 16n, 4n << 16n, 9n << 16n)), 65536);
  assert.equal(clockStep(new BigUint64Array(4)), 0);
});
