/**
 * onnxruntime-web's GroupQueryAttention on its WASM, one thread: the peer of the CPU backend.
 *
 * @module
 */

import { groupQueryAttention, ONNX_TYPE } from "./onnx_model.ts";
import { loadOnnxRuntime } from "./ort_load.ts";

/** A causal attention of the peer that can be run over and over. */
export interface Peer {
  readonly name: string;
  run(): Promise<Float32Array>;
  release(): Promise<void>;
}

/** Sizes of one request; `past` keys lie in the cache, `tokens` are new. */
export interface PeerCase {
  readonly tokens: number;
  readonly past: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** The values of one request: q, and k and v as [heads, past + tokens, headDim]. */
export interface PeerValues {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** Opens the peer on float32 values; null, after one line, where it is not to be had. */
export async function openPeer(sizes: PeerCase, values: PeerValues): Promise<Peer | null> {
  const ort = await loadOnnxRuntime();
  if (!ort) return null;
  const { tokens, past, numQoHeads, numKvHeads, headDim } = sizes;
  const model = groupQueryAttention(numQoHeads, numKvHeads, ONNX_TYPE.float32);
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const total = past + tokens;
  /** Tokens `from` to `to` of every head. */
  const cut = (all: Float32Array, from: number, to: number) => {
    const part = new Float32Array(numKvHeads * (to - from) * headDim);
    for (let head = 0; head < numKvHeads; head++) {
      const start = head * total * headDim;
      part.set(
        all.subarray(start + from * headDim, start + to * headDim),
        head * (to - from) * headDim,
      );
    }
    return part;
  };
  /** From [heads, tokens, dim] to [tokens, heads * dim]. */
  const tokenMajor = (all: Float32Array) => {
    const part = cut(all, past, total);
    const rows = new Float32Array(part.length);
    for (let head = 0; head < numKvHeads; head++) {
      for (let token = 0; token < tokens; token++) {
        const source = (head * tokens + token) * headDim;
        rows.set(part.subarray(source, source + headDim), (token * numKvHeads + head) * headDim);
      }
    }
    return rows;
  };
  const tensor = (data: Float32Array, dims: number[]) => new ort.Tensor("float32", data, dims);
  const feeds = {
    q: tensor(values.q, [1, tokens, numQoHeads * headDim]),
    k: tensor(tokenMajor(values.k), [1, tokens, numKvHeads * headDim]),
    v: tensor(tokenMajor(values.v), [1, tokens, numKvHeads * headDim]),
    past_k: tensor(cut(values.k, 0, past), [1, numKvHeads, past, headDim]),
    past_v: tensor(cut(values.v, 0, past), [1, numKvHeads, past, headDim]),
    lengths: new ort.Tensor("int32", Int32Array.of(total - 1), [1]),
    total: new ort.Tensor("int32", Int32Array.of(total), []),
  };
  return {
    name: `onnxruntime-web ${ort.env.versions.web ?? ""} WASM`.replace("  ", " "),
    run: async () => (await session.run(feeds, ["out"])).out.data,
    release: () => session.release(),
  };
}
