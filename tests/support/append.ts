/**
 * Appends to paged caches: what the cache must hold after, slot by slot, by the tests' own formats and
 * positions, and what the library makes of it.
 *
 * @module
 */

import { appendPagedKvCache, type Device, type DType, type PagedKv } from "@kvasir/attention";
import { type BatchIndicesPositions, getBatchIndicesPositions } from "@kvasir/attention";
import { isFp8, roundTo } from "./formats.ts";
import { ofHead, type PerHead, unitInTheLastPlace } from "./oracle.ts";
import { rotate } from "./positions.ts";
import { fromCodes, store, type Stored } from "./storage.ts";
import { mix32, normals } from "./values.ts";

/** What is drawn; lengths and counts are of each request, a length counts the appended tokens. */
export interface AppendSpec {
  readonly lengths: readonly number[];
  readonly appended: readonly number[];
  readonly pageSize: number;
  readonly heads: number;
  readonly headDim: number;
  /** Of v; a pair only. */
  readonly headDimV?: number;
  readonly dtype: DType;
  readonly kvDtype: DType;
  readonly kvLayout: "NHD" | "HND";
  /** One tensor [pages, 2, ...], or a pair. */
  readonly joined: boolean;
  readonly kScale?: PerHead;
  readonly vScale?: PerHead;
  /** Whether each row has a scale of its own; the scales are the last tensor of the cache then. */
  readonly rowScales?: boolean;
  readonly rope?: { readonly scale: number; readonly theta: number };
  /** Of the drawn values; 1. */
  readonly seed?: number;
}

/** A drawn append. */
export interface AppendCase extends AppendSpec, BatchIndicesPositions {
  readonly key: Stored;
  readonly value: Stored;
  readonly numPages: number;
  readonly indptr: readonly number[];
  readonly indices: readonly number[];
  readonly lastPageLen: readonly number[];
  /** What the tensors of the cache hold before: one, or k and v. */
  readonly before: readonly Uint8Array[];
}

/** Draws an append: pages in a scrambled order, with some that nobody uses, full of other bytes. */
export function drawAppend(spec: AppendSpec): AppendCase {
  const { lengths, appended, pageSize, heads, headDim, dtype, kvDtype, joined, seed = 1 } = spec;
  const headDimV = spec.headDimV ?? headDim;
  const counts = lengths.map((length) => Math.ceil(length / pageSize));
  const indptr = running(counts);
  const used = indptr[lengths.length];
  const numPages = used + 2;
  // By 7, 11 and 13, which divide no number of pages that is drawn at once.
  const stride = [7, 11, 13].find((prime) => numPages % prime !== 0)!;
  const indices = Array.from({ length: used }, (_, i) => (i * stride + 3) % numPages);
  const appendIndptr = running(appended);
  const tokens = appendIndptr[lengths.length];
  const page = (dim: number) => numPages * pageSize * heads * dim * bytesOf(kvDtype);
  const sizes = joined ? [2 * page(headDim)] : [page(headDim), page(headDimV)];
  if (spec.rowScales) sizes.push(numPages * 2 * heads * pageSize * 4);
  return {
    ...spec,
    headDimV,
    ...getBatchIndicesPositions(appendIndptr, lengths),
    key: store(normals(tokens * heads * headDim, seed), dtype),
    value: store(normals(tokens * heads * headDimV, seed + 1), dtype),
    numPages,
    indptr,
    indices,
    lastPageLen: lengths.map((length) => length === 0 ? 0 : (length - 1) % pageSize + 1),
    before: sizes.map((size, i) => Uint8Array.from({ length: size }, (_, at) => mix32(at * 2 + i))),
  };
}

function running(counts: readonly number[]): number[] {
  let sum = 0;
  return [0, ...counts.map((count) => sum += count)];
}

/** Bytes of an element. */
export function bytesOf(dtype: DType): number {
  return isFp8(dtype) ? 1 : dtype === "float32" ? 4 : 2;
}

/** A row of the cache: in which tensor, from which element on, and the appended row. */
export interface StoredRow {
  readonly tensor: number;
  readonly element: number;
  readonly part: "key" | "value";
  readonly head: number;
  readonly position: number;
  /** The appended row, decoded, and where it begins there. */
  readonly row: Float32Array;
  readonly from: number;
  /** Where its scale is, if it has one. */
  readonly scale: number;
}

/** Every row that is appended. */
export function* storedRows(c: AppendCase): Generator<StoredRow> {
  for (const part of ["key", "value"] as const) {
    const dim = part === "key" ? c.headDim : c.headDimV!;
    const isV = part === "value";
    for (let token = 0; token < c.batchIndices.length; token++) {
      const position = c.positions[token];
      const entry = c.indptr[c.batchIndices[token]] + Math.floor(position / c.pageSize);
      const page = c.joined ? 2 * c.indices[entry] + Number(isV) : c.indices[entry];
      const place = position % c.pageSize;
      for (let head = 0; head < c.heads; head++) {
        const row = c.kvLayout === "NHD"
          ? (page * c.pageSize + place) * c.heads + head
          : (page * c.heads + head) * c.pageSize + place;
        const from = (token * c.heads + head) * dim;
        yield {
          tensor: c.joined || !isV ? 0 : 1,
          element: row * dim,
          part,
          head,
          position,
          row: c[part].values.subarray(from, from + dim),
          from,
          scale: ((c.indices[entry] * c.heads + head) * c.pageSize + place) * 2 + Number(isV),
        };
      }
    }
  }
}

/** What a row is multiplied with for FP8 where it has a scale of its own, and that scale. */
export function ownScale(row: Float32Array, dtype: DType): { factor: number; scale: number } {
  const finite = Array.from(row, Math.abs).filter((x) => x > 0 && Number.isFinite(x));
  if (finite.length === 0) return { factor: 1, scale: 1 };
  const largest = Math.max(2 ** -80, ...finite);
  const most = dtype === "float8_e4m3fn" ? 448 : 57344;
  return {
    factor: Math.fround(most / largest),
    scale: Math.fround(largest * Math.fround(1 / most)),
  };
}

/** What a row is multiplied with. */
function factorOf(c: AppendCase, { part, head, row }: StoredRow): number {
  if (c.rowScales) return ownScale(row, c.kvDtype).factor;
  return Math.fround(1 / ofHead(part === "key" ? c.kScale : c.vScale, head));
}

/** What the cache's tensors must hold after an append without rotary encoding, bit by bit. */
export function expectedBytes(c: AppendCase): Uint8Array[] {
  const tensors = c.before.map((bytes) => bytes.slice());
  const size = bytesOf(c.kvDtype);
  for (const stored of storedRows(c)) {
    const { tensor, element, part, from, row } = stored;
    const factor = factorOf(c, stored);
    // Unscaled rows of the cache's dtype are copied.
    const bytes = factor === 1 && c.dtype === c.kvDtype
      ? c[part].bytes.subarray(from * size, (from + row.length) * size)
      : store(row.map((x) => Math.fround(x * factor)), c.kvDtype).bytes;
    tensors[tensor].set(bytes, element * size);
    if (!c.rowScales) continue;
    const scales = tensors[tensors.length - 1];
    new DataView(scales.buffer).setFloat32(4 * stored.scale, ownScale(row, c.kvDtype).scale, true);
  }
  return tensors;
}

/**
 * What is wrong with a cache after an append with rotary encoding, or null: every value lies between
 * what the ends of the exact value's bound round to, and nothing else has changed.
 */
export function turnedMiss(c: AppendCase, after: readonly Uint8Array[]): string | null {
  const size = bytesOf(c.kvDtype);
  const others = after.map((bytes) => bytes.slice());
  for (const stored of storedRows(c)) {
    const { tensor, element, part, position, row } = stored;
    const bytes = after[tensor].slice(element * size, (element + row.length) * size);
    const got = decoded(bytes, c.kvDtype);
    const factor = factorOf(c, stored);
    const turn = (round: (x: number) => number) =>
      part === "key" && c.rope ? rotate(row, position, c.rope, round) : Float64Array.from(row);
    const exact = turn((x) => x).map((x) => x * factor);
    const plain = turn(Math.fround).map((x) => Math.fround(x * factor));
    let error = 0;
    exact.forEach((x, i) => {
      error = Math.max(error, Math.abs(x - plain[i]), unitInTheLastPlace(x));
    });
    for (let i = 0; i < row.length; i++) {
      const bound = 2 * error + 1e-6;
      const [least, most] = [exact[i] - bound, exact[i] + bound].map((x) => roundTo(x, c.kvDtype));
      if (!(got[i] >= least && got[i] <= most)) {
        return `${part}, position ${position}, ${i}: ${got[i]}, not ${exact[i]}`;
      }
    }
    others[tensor].set(
      c.before[tensor].subarray(element * size, element * size + bytes.length),
      element * size,
    );
  }
  const changed = others.findIndex((bytes, i) => bytes.some((x, at) => x !== c.before[i][at]));
  return changed < 0 ? null : `tensor ${changed} has changed where nothing is appended`;
}

function decoded(bytes: Uint8Array<ArrayBuffer>, dtype: DType): Float32Array {
  if (dtype === "float32") return new Float32Array(bytes.buffer);
  return fromCodes(isFp8(dtype) ? bytes : new Uint16Array(bytes.buffer), dtype).values;
}

/** The shapes of a cache's tensors. */
export function cacheShapes(c: AppendCase): number[][] {
  const inner = (dim: number) =>
    c.kvLayout === "NHD" ? [c.pageSize, c.heads, dim] : [c.heads, c.pageSize, dim];
  const shapes = c.joined
    ? [[c.numPages, 2, ...inner(c.headDim)]]
    : [[c.numPages, ...inner(c.headDim)], [c.numPages, ...inner(c.headDimV!)]];
  return c.rowScales ? [...shapes, [c.numPages, c.heads, c.pageSize, 2]] : shapes;
}

/** Appends by the library; what the cache's tensors hold after. */
export async function runAppend(device: Device, c: AppendCase): Promise<Uint8Array[]> {
  const tokens = c.batchIndices.length;
  using key = device.tensorFromBytes(c.key.bytes, [tokens, c.heads, c.headDim], c.dtype);
  using value = device.tensorFromBytes(c.value.bytes, [tokens, c.heads, c.headDimV!], c.dtype);
  const shapes = cacheShapes(c);
  const cache = shapes.map((shape, i) =>
    device.tensorFromBytes(
      c.before[i],
      shape,
      c.rowScales && i === shapes.length - 1 ? "float32" : c.kvDtype,
    )
  );
  try {
    await appendPagedKvCache(
      key,
      value,
      c.batchIndices,
      c.positions,
      c.joined ? cache[0] : cache.slice(0, 2) as unknown as PagedKv,
      c.indices,
      c.indptr,
      c.lastPageLen,
      {
        kvLayout: c.kvLayout,
        kScale: c.kScale,
        vScale: c.vScale,
        kvScales: c.rowScales ? cache[cache.length - 1] : undefined,
        ...c.rope && {
          posEncodingMode: "ROPE_LLAMA",
          ropeScale: c.rope.scale,
          ropeTheta: c.rope.theta,
        },
      },
    );
    return await Promise.all(cache.map((tensor) => tensor.readBytes()));
  } finally {
    for (const tensor of cache) tensor.destroy();
  }
}
