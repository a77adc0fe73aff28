/**
 * Paged calls, made of the rows of padded inputs: pages in any order, slots that no request uses NaN.
 *
 * @module
 */

import {
  BatchDecodeWithPagedKvCache,
  BatchPrefillWithPagedKvCache,
  type Device,
  type DType,
  type PagedSizes,
  type PlannedOptions,
  type Tensor,
} from "@kvasir/attention";
import { type DecodeAnswer, optionsOf } from "./decode.ts";
import { cacheRow } from "./oracle.ts";
import { type MaskForm, maskOptions, type PrefillInputs } from "./prefill.ts";
import { gatherRows, indptrOf, lengthsOf, masksInUse, padRows, rowsInUse } from "./ragged.ts";
import { fillWithNan, store, type Stored } from "./storage.ts";
import { movedScales } from "./token_scales.ts";
import { uniform } from "./values.ts";

/** How a padded cache becomes a paged one. */
export interface PagedForm {
  readonly pageSize: number;
  /** One tensor, or a pair; a pair where v's head dim is another. */
  readonly isJoined?: boolean;
  /** Pages that no request has. */
  readonly spare?: number;
  /** Of the order of pages. */
  readonly seed?: number;
  /** The page numbers themselves, instead. */
  readonly order?: readonly number[];
}

/** A paged cache and its table. */
export interface PagedInputs {
  readonly indptr: number[];
  readonly indices: number[];
  readonly lastPageLen: number[];
  readonly numPages: number;
  /** Makes the cache's tensors: one, or two. */
  tensors(device: Device): readonly Tensor[];
  /** Makes the tensor of tokens' scales, where the case has them. */
  scales(device: Device): Tensor | undefined;
}

/** The numbers from 0 to `count` in an order of their own. */
export function shuffled(count: number, seed: number): number[] {
  const random = uniform(seed);
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Puts the rows of a padded case on pages. */
export function pagedInputs(
  { k, v, problem: p }: Pick<PrefillInputs, "k" | "v" | "problem">,
  { pageSize, isJoined = true, spare = 2, seed = 1, order }: PagedForm,
): PagedInputs {
  const { headDim, headDimV = headDim, numKvHeads, kvLayout } = p;
  const { kvLens } = lengthsOf(p);
  const pages = kvLens.map((length) => Math.ceil(length / pageSize));
  const indptr = indptrOf(pages);
  const inUse = indptr[pages.length];
  const numPages = order ? Math.max(...order) + 1 : inUse + spare;
  const indices = [...order ?? shuffled(numPages, seed).slice(0, inUse)];
  const lastPageLen = kvLens.map((length, i) => length - Math.max(0, pages[i] - 1) * pageSize);
  const joined = isJoined && headDim === headDimV && k.dtype === v.dtype;
  const rowAt = (page: number, place: number, head: number, part: number) => {
    const inPage = kvLayout === "NHD" ? place * numKvHeads + head : head * pageSize + place;
    return (joined ? 2 * page + part : page) * pageSize * numKvHeads + inPage;
  };
  const put = (target: Stored, from: Stored, size: number, part: number) => {
    const bytes = size * from.bytes.length / from.values.length;
    kvLens.forEach((length, request) => {
      for (let token = 0; token < length; token++) {
        const page = indices[indptr[request] + Math.floor(token / pageSize)];
        for (let head = 0; head < numKvHeads; head++) {
          const source = cacheRow(p, request, token, head, 1) * bytes;
          const row = rowAt(page, token % pageSize, head, part) * bytes;
          target.bytes.set(from.bytes.subarray(source, source + bytes), row);
        }
      }
    });
  };
  const inner = (dim: number) =>
    kvLayout === "NHD" ? [pageSize, numKvHeads, dim] : [numKvHeads, pageSize, dim];
  const empty = (shape: readonly number[], dtype: DType) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const stored = store(new Float32Array(count), dtype);
    fillWithNan(stored, 0, count);
    return stored;
  };
  const parts: (readonly [Stored, readonly number[]])[] = [];
  if (joined) {
    const shape = [numPages, 2, ...inner(headDim)];
    const both = empty(shape, k.dtype);
    put(both, k, headDim, 0);
    put(both, v, headDim, 1);
    parts.push([both, shape]);
  } else {
    for (const [from, dim] of [[k, headDim], [v, headDimV]] as const) {
      const shape = [numPages, ...inner(dim)];
      const stored = empty(shape, from.dtype);
      put(stored, from, dim, 0);
      parts.push([stored, shape]);
    }
  }
  return {
    indptr,
    indices,
    lastPageLen,
    numPages,
    scales: (device) =>
      p.kvScales && device.tensor(
        movedScales(
          p,
          kvLens,
          numPages * numKvHeads * pageSize,
          (request, head, token) => {
            const page = indices[indptr[request] + Math.floor(token / pageSize)];
            return (page * numKvHeads + head) * pageSize + token % pageSize;
          },
        ),
        [numPages, numKvHeads, pageSize, 2],
        "float32",
      ),
    tensors: (device) =>
      parts.map(([{ bytes, dtype }, shape]) => device.tensorFromBytes(bytes, shape, dtype)),
  };
}

/** The cache as `run` takes it. */
export function cacheOf(tensors: readonly Tensor[]): Tensor | readonly [Tensor, Tensor] {
  return tensors.length === 1 ? tensors[0] : [tensors[0], tensors[1]];
}

/** The sizes and options of a case, as plans name them. */
export function planOf(
  { q, k, v, problem: p, outDtype }: PrefillInputs,
  pageSize: number,
): PlannedOptions & PagedSizes {
  return {
    ...optionsOf(p),
    numQoHeads: p.numQoHeads,
    numKvHeads: p.numKvHeads,
    headDim: p.headDim,
    pageSize,
    qDtype: q.dtype,
    kvDtype: { k: k.dtype, v: v.dtype },
    outDtype,
    kvScales: p.kvScales ? "token" : "none",
  };
}

/** Runs a decode case by the paged call. */
export function runPagedDecode(form: PagedForm) {
  return async (device: Device, inputs: PrefillInputs): Promise<DecodeAnswer> => {
    const { q, problem: p } = inputs;
    const { indptr, indices, lastPageLen, tensors, scales } = pagedInputs(inputs, form);
    using kvScales = scales(device);
    using decode = new BatchDecodeWithPagedKvCache(device, { kvLayout: p.kvLayout });
    decode.plan({ ...planOf(inputs, form.pageSize), indptr, indices, lastPageLen });
    const cache = tensors(device);
    using queries = device.tensorFromBytes(
      q.bytes,
      [p.numRequests, p.numQoHeads, p.headDim],
      q.dtype,
    );
    const result = await decode.run(queries, cacheOf(cache), { returnLse: true, kvScales });
    using out = result.out;
    using lse = result.lse;
    const answer = { out: await out.read(), lse: await lse.read() };
    for (const tensor of cache) tensor.destroy();
    return answer;
  };
}

/** Runs a prefill case by the paged call; the answer is padded again. */
export function runPagedPrefill(form: PagedForm, maskForm: MaskForm = "booleans") {
  return async (device: Device, inputs: PrefillInputs): Promise<DecodeAnswer> => {
    const { q, problem: p } = inputs;
    const { numQueries = 1, headDim, headDimV = headDim, numQoHeads } = p;
    const { qoLens } = lengthsOf(p);
    const qoIndptr = indptrOf(qoLens);
    const queries = rowsInUse(qoLens, numQueries);
    const { indptr, indices, lastPageLen, tensors, scales } = pagedInputs(inputs, form);
    using kvScales = scales(device);
    using prefill = new BatchPrefillWithPagedKvCache(device, { kvLayout: p.kvLayout });
    prefill.plan({
      ...planOf(inputs, form.pageSize),
      ...maskOptions(masksInUse(p), maskForm),
      headDimV,
      causal: p.causal,
      qoIndptr,
      pagedKvIndptr: indptr,
      pagedKvIndices: indices,
      pagedKvLastPageLen: lastPageLen,
    });
    const cache = tensors(device);
    using qTensor = device.tensorFromBytes(
      gatherRows(q, queries, numQoHeads * headDim),
      [queries.length, numQoHeads, headDim],
      q.dtype,
    );
    const result = await prefill.run(qTensor, cacheOf(cache), { returnLse: true, kvScales });
    using outTensor = result.out;
    using lseTensor = result.lse;
    const [rows, rowsLse] = [await outTensor.read(), await lseTensor.read()];
    for (const tensor of cache) tensor.destroy();
    return padRows(p, queries, rows, rowsLse);
  };
}
