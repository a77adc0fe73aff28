/** The bench's command line: what it reads, and what it refuses in one line. */

import assert from "node:assert/strict";
import { PARTS, readArguments } from "../../bench/arguments.ts";
import { BenchError } from "../../bench/bench_error.ts";

Deno.test("readArguments() reads parts, flags and values", () => {
  assert.deepEqual(readArguments([]), {
    parts: PARTS,
    quick: false,
    peers: true,
    filter: "",
    json: null,
    profile: null,
    machine: "",
    sweep: null,
    variants: null,
  });
  const args = ["cpu", "--quick", "--no-peers", "--json=a.json", "--machine", "H200", "gpu"];
  const { parts, quick, peers, json, machine } = readArguments(args);
  assert.deepEqual([parts, quick, peers, json, machine], [
    ["cpu", "gpu"],
    true,
    false,
    "a.json",
    "H200",
  ]);
});

Deno.test("readArguments() takes a sweep and a profile as of the GPU", () => {
  const sweep = readArguments(["--sweep", "rows=2,4", "--sweep", "workgroup=64", "--json", "x"]);
  assert.deepEqual(sweep.parts, ["gpu"]);
  assert.deepEqual(sweep.sweep, { rows: [2, 4], workgroup: [64] });
  assert.deepEqual(readArguments(["--profile", "t.json", "--filter", "e5m2"]).parts, ["gpu"]);
  const both = readArguments(["--variants", "v.json", "--sweep", "unroll=2,4"]);
  assert.deepEqual([both.parts, both.variants, both.sweep], [["gpu"], "v.json", {
    unroll: [2, 4],
  }]);
});

Deno.test("readArguments() refuses in one line", () => {
  const refusals: [string[], RegExp][] = [
    [["--fast"], /^--fast is unknown; there are: --quick, /],
    [["-q"], /^-q is unknown/],
    [["decode"], /^decode is unknown; there are: gpu, codec, cpu$/],
    [["--json"], /^--json needs a value$/],
    [["--filter="], /^--filter needs a value$/],
    [["--quick=yes"], /^--quick takes no value$/],
    [["--sweep", "rows=two"], /^--sweep rows=two: expected whole numbers/],
    [["--sweep", "colour=2"], /^--sweep colour=2: colour is none of /],
    [["codec", "--sweep", "rows=2"], /^--sweep is for the part gpu alone$/],
    [["gpu", "cpu", "--profile", "t"], /^--profile is for the part gpu alone$/],
    [["codec", "--variants", "v"], /^--variants is for the part gpu alone$/],
    [["--profile", "t", "--variants", "v"], /^--profile traces instead .* with no --variants$/],
    [["--profile", "t", "--json", "a"], /^--profile traces instead of timing/],
    [["--profile", "t", "--sweep", "rows=2"], /^--profile traces instead of timing/],
  ];
  for (const [args, message] of refusals) {
    assert.throws(() => readArguments(args), (error: unknown) => {
      assert.ok(error instanceof BenchError, args.join(" "));
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  }
});
