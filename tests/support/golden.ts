/**
 * FlashInfer's own answers (`tests/golden/`), and their inputs as decode calls.
 *
 * Every query row of a plain prefill is a decode of its own, with the keys that its mask leaves
 * as the length: so cases of prefill, ragged or paged, can judge the decode calls too.
 *
 * @module
 */

import type { DType } from "@kvasir/attention";
import golden from "../golden/flashinfer-0.5.3.json" with { type: "json" };
import { type DecodeInputs, optionsOf } from "./decode.ts";
import type { SmallDType } from "./formats.ts";
import type { PrefillInputs } from "./prefill.ts";
import { type AttentionCase, type AttentionOptions, cacheRow } from "./oracle.ts";
import { fromCodes, store, type Stored } from "./storage.ts";
import { goldenValue, goldenValues } from "./values.ts";

const BYTES = Deno.readFileSync(new URL("../golden/flashinfer-0.5.3.bin", import.meta.url));

interface GoldenArray {
  readonly dtype: string;
  readonly offset: number;
  readonly bytes: number;
}

/** What the cases that can be run as decodes have in common; see the golden README. */
export interface GoldenCase extends AttentionOptions {
  readonly id: string;
  readonly dtype: DType;
  readonly kvDtype: DType;
  readonly kvLayout: "NHD" | "HND";
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly causal: boolean;
  /** Queries and keys of each request. */
  readonly qoLens: readonly number[];
  readonly kvLens: readonly number[];
  /** Null where the cache is not paged. */
  readonly pages: { readonly size: number; readonly indices: readonly number[] } | null;
  readonly seeds: { readonly q: number; readonly k: number; readonly v: number };
  /** FlashInfer's answer. */
  readonly out: Float32Array;
  readonly lse: Float32Array;
}

/** The ids of all cases. */
export const GOLDEN_IDS: readonly string[] = golden.map(({ id }) => id);

// deno-lint-ignore no-explicit-any -- the cases' fields differ by their call
function rawCase(id: string): any {
  const raw = golden.find((entry) => entry.id === id);
  if (!raw) throw new Error(`no golden case ${id}`);
  return raw;
}

function read({ dtype, offset, bytes }: GoldenArray): Float32Array {
  // A copy, since the arrays do not all begin where their elements may.
  const { buffer } = BYTES.slice(offset, offset + bytes);
  return dtype === "float32"
    ? new Float32Array(buffer)
    : fromCodes(new Uint16Array(buffer), dtype as SmallDType).values;
}

/** FlashInfer's answer to a case. */
export function goldenArrays(id: string): { out: Float32Array; lse: Float32Array } {
  const { arrays } = rawCase(id);
  return { out: read(arrays.out), lse: read(arrays.lse) };
}

/** An append's lengths, and FlashInfer's index arrays. */
export function goldenIndices(id: string): {
  appendLens: number[];
  kvLens: number[];
  arrays: { batchIndices: Int32Array; positions: Int32Array };
} {
  const { appendLens, kvLens, arrays } = rawCase(id);
  const indices = ({ offset, bytes }: GoldenArray) =>
    new Int32Array(BYTES.slice(offset, offset + bytes).buffer);
  const { batchIndices, positions } = arrays;
  return {
    appendLens,
    kvLens,
    arrays: { batchIndices: indices(batchIndices), positions: indices(positions) },
  };
}

/** Looks a case up, and gives it the form that all share. */
export function goldenCase(id: string): GoldenCase {
  const raw = rawCase(id);
  const kvLens: number[] = raw.kvLens ?? [raw.kv];
  return {
    ...raw,
    causal: raw.causal ?? false,
    qoLens: raw.qoLens ?? (raw.qo ? [raw.qo] : kvLens.map(() => 1)),
    kvLens,
    pages: raw.pageSize ? pagesOf(kvLens, raw.pageSize, raw.numPages) : null,
    ...goldenArrays(id),
  };
}

function pagesOf(kvLens: readonly number[], size: number, numPages: number | undefined) {
  const inUse = kvLens.reduce((sum, length) => sum + Math.ceil(length / size), 0);
  const indices = Array.from(
    { length: inUse },
    (_, j) => numPages === undefined ? inUse - 1 - j : (j * 7919 + 13) % numPages,
  );
  return { size, indices };
}

/** The inputs of a case as one padded prefill call, with its mask. */
export function goldenPrefill(c: GoldenCase): PrefillInputs {
  const [numRequests, numQueries] = [c.qoLens.length, Math.max(...c.qoLens)];
  const shape = {
    numRequests,
    numQueries,
    qoLens: c.qoLens,
    numQoHeads: c.numQoHeads,
    numKvHeads: c.numKvHeads,
    headDim: c.headDim,
    maxKvLen: Math.max(...c.kvLens),
    kvLens: c.kvLens,
    kvLayout: c.kvLayout,
    causal: c.causal,
    ...optionsOf(c),
  };
  const rowSize = c.numQoHeads * c.headDim;
  const values = new Float32Array(numRequests * numQueries * rowSize);
  let first = 0;
  c.qoLens.forEach((qoLen, request) => {
    for (let i = 0; i < qoLen * rowSize; i++) {
      values[request * numQueries * rowSize + i] = goldenValue(first + i, c.seeds.q);
    }
    first += qoLen * rowSize;
  });
  const q = store(values, c.dtype);
  const requests = c.qoLens.map((_, request) => request);
  const k = gather(c, shape, requests, c.seeds.k);
  const v = gather(c, shape, requests, c.seeds.v);
  const problem = { ...shape, mask: goldenMask(c, shape), q: q.values, k: k.values, v: v.values };
  return { q, k, v, problem, outDtype: c.dtype };
}

/** A case's mask, padded: what its note in the list of cases says. */
function goldenMask(
  c: GoldenCase,
  { numQueries, maxKvLen }: { numQueries: number; maxKvLen: number },
): boolean[] | undefined {
  const { customMask: note } = rawCase(c.id);
  if (note === undefined) return undefined;
  const mask = new Array<boolean>(c.qoLens.length * numQueries * maxKvLen).fill(false);
  c.qoLens.forEach((qoLen, request) => {
    const seed = note.startsWith("request b:") ? 100 + request : 4;
    for (let i = 0; i < qoLen; i++) {
      for (let j = 0; j < c.kvLens[request]; j++) {
        const shows = goldenValue(i * c.kvLens[request] + j, seed) > -1;
        mask[(request * numQueries + i) * maxKvLen + j] = shows;
      }
    }
  });
  return mask;
}

/** The inputs of a case as one padded decode call: one request a query row. */
export function goldenInputs(c: GoldenCase): DecodeInputs {
  const rows = c.qoLens.flatMap((qoLen, request) =>
    Array.from({ length: qoLen }, (_, i) => ({
      request,
      kvLen: c.causal ? c.kvLens[request] - qoLen + i + 1 : c.kvLens[request],
    }))
  );
  const shape = {
    numRequests: rows.length,
    numQoHeads: c.numQoHeads,
    numKvHeads: c.numKvHeads,
    headDim: c.headDim,
    maxKvLen: Math.max(...rows.map(({ kvLen }) => kvLen)),
    kvLens: rows.map(({ kvLen }) => kvLen),
    kvLayout: c.kvLayout,
    ...optionsOf(c),
  };
  const q = store(goldenValues(rows.length * c.numQoHeads * c.headDim, c.seeds.q), c.dtype);
  const requests = rows.map(({ request }) => request);
  const k = gather(c, shape, requests, c.seeds.k);
  const v = gather(c, shape, requests, c.seeds.v);
  const problem = { ...shape, q: q.values, k: k.values, v: v.values };
  return { q, k, v, problem, outDtype: c.dtype };
}

/** The padded k or v: row r holds the tokens of `requests[r]`, wherever they lie in the original. */
function gather(
  c: GoldenCase,
  shape: Omit<AttentionCase, "q" | "k" | "v">,
  requests: readonly number[],
  seed: number,
): Stored {
  const size = requests.length * shape.maxKvLen * c.numKvHeads * c.headDim;
  // The values are few, so the slow encoder has little to do, and the copying is by their index.
  const table = store(Float32Array.from({ length: 2048 }, (_, i) => (i - 1024) / 512), c.kvDtype);
  const elementBytes = table.bytes.length / 2048;
  const bytes = new Uint8Array(size * elementBytes);
  const values = new Float32Array(size);
  requests.forEach((request, row) => {
    for (let token = 0; token < shape.kvLens![row]; token++) {
      for (let head = 0; head < c.numKvHeads; head++) {
        const from = goldenRow(c, request, token, head) * c.headDim;
        const to = cacheRow(shape, row, token, head);
        for (let d = 0; d < c.headDim; d++) {
          const entry = goldenValue(from + d, seed) * 512 + 1024;
          values[to + d] = table.values[entry];
          for (let b = 0; b < elementBytes; b++) {
            bytes[(to + d) * elementBytes + b] = table.bytes[entry * elementBytes + b];
          }
        }
      }
    }
  });
  return { dtype: c.kvDtype, bytes, values };
}

/** Which row of headDim elements a key is in the case's own tensor. */
function goldenRow(c: GoldenCase, request: number, token: number, head: number): number {
  const before = c.kvLens.slice(0, request);
  if (!c.pages) return (before.reduce((a, b) => a + b, 0) + token) * c.numKvHeads + head;
  const { size, indices } = c.pages;
  const firstPage = before.reduce((sum, length) => sum + Math.ceil(length / size), 0);
  const page = indices[firstPage + Math.floor(token / size)];
  const slot = token % size;
  return c.kvLayout === "NHD"
    ? (page * size + slot) * c.numKvHeads + head
    : (page * c.numKvHeads + head) * size + slot;
}
