/**
 * Prefill of a prompt with 3 query heads a KV head over an FP8 cache, then one decoding step over the
 * same cache: what comes before each token of a language model.
 *
 *     deno run examples/prefill.ts
 */

import {
  batchDecodeWithPaddedKvCache,
  batchPrefillWithPaddedKvCache,
  openDevice,
} from "@kvasir/attention";

const [requests, room, heads, kvHeads, headDim] = [2, 96, 24, 8, 128];
/** Tokens of each prompt; the cache has room for more. */
const prompts = [80, 33];

const random = (n: number) => Float32Array.from({ length: n }, () => 2 * Math.random() - 1);

using device = await openDevice();
console.log(`${device.report.backend}: ${device.report.description}`);

// Keys and values of the prompts, and of the token that follows each, at their places in the cache.
const cacheShape = [requests, room, kvHeads, headDim];
const cacheSize = cacheShape.reduce((a, b) => a * b);
using k = device.tensor(random(cacheSize), cacheShape, "float8_e4m3fn");
using v = device.tensor(random(cacheSize), cacheShape, "float8_e4m3fn");

// All queries of a prompt at once; query i sees keys 0 to i.
const queries = Math.max(...prompts);
const qSize = requests * queries * heads * headDim;
using q = device.tensor(random(qSize), [requests, queries, heads, headDim], "float16");
const prefilled = await batchPrefillWithPaddedKvCache(q, k, v, {
  causal: true,
  qoLens: prompts,
  seqLens: prompts,
  returnLse: true,
});
using out = prefilled.out;
using lse = prefilled.lse;
console.log(
  "prefill",
  out.shape,
  "lse of the last query",
  (await lse.read())[79 * heads].toFixed(3),
);

// The next token: one query a request, which sees one key more.
using next = device.tensor(
  random(requests * heads * headDim),
  [requests, heads, headDim],
  "float16",
);
using token = await batchDecodeWithPaddedKvCache(next, k, v, {
  seqLens: prompts.map((length) => length + 1),
});
console.log("decode ", token.shape, (await token.read()).subarray(0, 4));
