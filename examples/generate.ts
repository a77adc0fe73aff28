/**
 * Generates text with a small transformer of random weights, whose attention, KV cache and rotary
 * position encoding are this library's: once with a float16 cache, once with an FP8 one of half the
 * size.
 *
 *     deno run examples/generate.ts
 */

import * as kvasir from "@kvasir/attention";
import { embed, finishLayer, MODEL, nextToken, project } from "./generate_model.ts";

const PROMPT = Array.from("Once upon a time, a tensor", (letter) => letter.charCodeAt(0));
const TOKENS = 48;
const PAGE_SIZE = 16;
const { layers, numQoHeads, numKvHeads, headDim } = MODEL;

using device = await kvasir.openDevice();
console.log(`${device.report.backend}: ${device.report.description}`);

/** One run of the loop; the generated tokens. */
async function generate(kvDtype: kvasir.DType): Promise<number[]> {
  const sizes = { numQoHeads, numKvHeads, headDim, pageSize: PAGE_SIZE };
  const dtypes = { qDtype: "float16", kvDtype } as const;
  const posEncodingMode = "ROPE_LLAMA";
  const numPages = Math.ceil((PROMPT.length + TOKENS) / PAGE_SIZE);
  // One page table for all layers.
  using cache = kvasir.PagedKvCache.create(device, {
    numPages,
    pageSize: PAGE_SIZE,
    numKvHeads,
    headDim,
    dtype: kvDtype,
    numLayers: layers,
  });
  using prefill = new kvasir.BatchPrefillWithPagedKvCache(device);
  using decode = new kvasir.BatchDecodeWithPagedKvCache(device);
  const sequence = cache.createSequence();

  /** Runs the model over tokens that follow the cached ones; the state of the last. */
  async function forward(
    tokens: readonly number[],
    attend: kvasir.BatchPrefillWithPagedKvCache | kvasir.BatchDecodeWithPagedKvCache,
  ): Promise<Float32Array> {
    const states = tokens.map(embed);
    for (let layer = 0; layer < layers; layer++) {
      const rows = project(layer, states);
      const cacheShape = [tokens.length, numKvHeads, headDim];
      using q = device.tensor(rows.q, [tokens.length, numQoHeads, headDim], "float16");
      using k = device.tensor(rows.k, cacheShape, "float16");
      using v = device.tensor(rows.v, cacheShape, "float16");
      await cache.append(layer, k, v);
      using out = await attend.run(q, cache.layer(layer));
      finishLayer(layer, states, await out.read());
    }
    return states[states.length - 1];
  }

  // The prompt, all tokens at once.
  await cache.reserve([{ sequence, tokens: PROMPT.length }]);
  const prompt = cache.tables([sequence]);
  prefill.plan({
    ...sizes,
    ...dtypes,
    posEncodingMode,
    causal: true,
    qoIndptr: [0, PROMPT.length],
    pagedKvIndptr: prompt.indptr,
    pagedKvIndices: prompt.indices,
    pagedKvLastPageLen: prompt.lastPageLen,
  });
  const generated = [nextToken(await forward(PROMPT, prefill))];

  // Then token by token. A new page needs a new plan, a longer last page does not.
  let begun = 0;
  let pages = 0;
  while (generated.length < TOKENS) {
    await cache.reserve([{ sequence, tokens: 1 }]);
    const { indptr, indices, lastPageLen } = cache.tables([sequence]);
    if (indices.length === pages) decode.updateLastPageLen(lastPageLen);
    else decode.plan({ ...sizes, ...dtypes, posEncodingMode, indptr, indices, lastPageLen });
    pages = indices.length;
    generated.push(nextToken(await forward(generated.slice(-1), decode)));
    // The first token by decode waits for its kernel.
    if (generated.length === 2) begun = performance.now();
    if (generated.length % 16 === 0) {
      const seconds = (performance.now() - begun) / 1000;
      const rate = (generated.length - 2) / seconds;
      console.log(`  ${kvDtype}: ${generated.length} tokens, ${rate.toFixed(1)} a second`);
    }
  }
  console.log(`  ${kvDtype}: ${cache.statistics().bytes / 1024} KiB of cache`);
  return generated;
}

const exact = await generate("float16");
const small = await generate("float8_e4m3fn");
const differs = exact.findIndex((token, i) => token !== small[i]);
console.log("tokens", exact.slice(0, 12).join(" "), "...");
console.log(
  `the first ${differs < 0 ? exact.length : differs} tokens of ${exact.length} are the same`,
);
