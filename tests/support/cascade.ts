/**
 * Cascades, made of padded inputs whose requests begin alike.
 *
 * @module
 */

import { type Device, MultiLevelCascadeAttention } from "@kvasir/attention";
import type { DecodeAnswer } from "./decode.ts";
import { cacheRow } from "./oracle.ts";
import { cacheOf, pagedInputs, planOf } from "./paged.ts";
import type { PrefillInputs } from "./prefill.ts";
import { gatherRows, indptrOf, lengthsOf, padRows, rowsInUse } from "./ragged.ts";
import { store, type Stored } from "./storage.ts";

/** Tokens that requests share: of each level but the last, the first request of each group. */
export interface SharedPrefix {
  readonly tokens: number;
  /** Where groups of requests begin; the first is 0. */
  readonly groups: readonly number[];
}

/** Copies a row of k or v, in bytes and values. */
function copyRow(from: Stored, source: number, to: Stored, target: number, size: number): void {
  const bytes = size * from.bytes.length / from.values.length;
  to.bytes.set(
    from.bytes.subarray(source / size * bytes, (source / size + 1) * bytes),
    target / size * bytes,
  );
  to.values.set(from.values.subarray(source, source + size), target);
}

/** Makes the requests of each group begin with the same keys and values, level after level. */
export function shareKeys(
  { k, v, problem: p }: PrefillInputs,
  levels: readonly SharedPrefix[],
): void {
  let first = 0;
  for (const { tokens, groups } of levels) {
    for (let request = 0; request < p.numRequests; request++) {
      const leader = groups.filter((begin) => begin <= request).at(-1)!;
      for (let token = first; token < first + tokens; token++) {
        for (let head = 0; head < p.numKvHeads; head++) {
          const [from, to] = [leader, request].map((r) => cacheRow(p, r, token, head));
          for (const stored of [k, v]) copyRow(stored, from, stored, to, p.headDim);
        }
      }
    }
    first += tokens;
  }
}

/** Runs a case as a cascade: shared levels, then what each request has alone. */
export function runCascade(pageSize: number, shared: readonly SharedPrefix[], isJoined = true) {
  return async (device: Device, inputs: PrefillInputs): Promise<DecodeAnswer> => {
    const { q, k, v, problem: p } = inputs;
    const { headDim, numQoHeads, numKvHeads } = p;
    const { qoLens, kvLens } = lengthsOf(p);
    // Every group of every level is a request of its own, with some of the keys.
    let before = 0;
    const parts = shared.flatMap(({ tokens, groups }) => {
      const first = before;
      before += tokens;
      return groups.map((request) => ({ request, first, length: tokens }));
    }).concat(
      kvLens.map((length, request) => ({ request, first: before, length: length - before })),
    );
    const maxKvLen = Math.max(1, ...parts.map(({ length }) => length));
    const shape = {
      ...p,
      numRequests: parts.length,
      maxKvLen,
      kvLens: parts.map(({ length }) => length),
    };
    const gather = (from: Stored) => {
      const to = store(
        new Float32Array(parts.length * maxKvLen * numKvHeads * headDim),
        from.dtype,
      );
      parts.forEach(({ request, first, length }, part) => {
        for (let token = 0; token < length; token++) {
          for (let head = 0; head < numKvHeads; head++) {
            copyRow(
              from,
              cacheRow(p, request, first + token, head),
              to,
              cacheRow(shape, part, token, head),
              headDim,
            );
          }
        }
      });
      return to;
    };
    const paged = pagedInputs({ k: gather(k), v: gather(v), problem: shape }, {
      pageSize,
      isJoined,
    });
    const qoIndptr = indptrOf(qoLens);
    let part = 0;
    const levelOf = (rows: readonly number[]) => {
      const groups = rows.length - 1;
      const indptr = paged.indptr.slice(part, part + groups + 1);
      const lens = paged.lastPageLen.slice(part, part + groups);
      part += groups;
      return {
        qoIndptr: rows,
        pagedKvIndptr: indptr.map((at) => at - indptr[0]),
        pagedKvIndices: paged.indices.slice(indptr[0], indptr[groups]),
        pagedKvLastPageLen: lens,
      };
    };
    const levels = shared.map(({ groups }) =>
      levelOf([...groups, p.numRequests].map((request) => qoIndptr[request]))
    ).concat(levelOf(qoIndptr));
    using attention = new MultiLevelCascadeAttention(device, {
      numLevels: levels.length,
      kvLayout: p.kvLayout,
    });
    const { causal } = p;
    attention.plan({ ...planOf(inputs, pageSize), levels, causal });
    const queries = rowsInUse(qoLens, p.numQueries ?? 1);
    const cache = paged.tensors(device);
    using qTensor = device.tensorFromBytes(
      gatherRows(q, queries, numQoHeads * headDim),
      [queries.length, numQoHeads, headDim],
      q.dtype,
    );
    const result = await attention.run(qTensor, cacheOf(cache), { returnLse: true });
    using out = result.out;
    using lse = result.lse;
    const answer = padRows(p, queries, await out.read(), await lse.read());
    for (const tensor of cache) tensor.destroy();
    return answer;
  };
}
