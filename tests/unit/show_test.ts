/** How error messages show values: whatever the value, it is shown. */

import assert from "node:assert/strict";
import { show } from "../../src/shape.ts";

Deno.test("show() is short, and never throws", () => {
  const revoked = Proxy.revocable([], {});
  revoked.revoke();
  const cases: [unknown, string][] = [
    [[1, 2], "[1, 2]"],
    [new Float32Array(9), "[0, 0, 0, 0, 0, 0, 0, 0, ...]"],
    ["a", '"a"'],
    [["a", null, undefined], "[a, null, undefined]"],
    [[[{ toString: 0 }]], "[[...]]"],
    [[{ toString: 0 }], "[an [object Object]]"],
    [{ [Symbol.toStringTag]: "X" }, "an [object X]"],
    [Symbol("s"), "Symbol(s)"],
    [() => 1, "a function"],
    [1n, "1"],
    [revoked.proxy, "an object that cannot be shown"],
    [{
      get [Symbol.toStringTag](): string {
        throw new Error("no");
      },
    }, "an object that cannot be shown"],
  ];
  for (const [value, text] of cases) assert.equal(show(value), text);
});
