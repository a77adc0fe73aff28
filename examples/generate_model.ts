/**
 * The rest of the transformer that examples/generate.ts runs: everything but attention, its cache and
 * its position encoding, in plain JavaScript with seeded random weights.
 *
 * @module
 */

/** The model's sizes: 3 query heads share a KV head. */
export const MODEL = {
  vocabulary: 256,
  hidden: 192,
  layers: 3,
  numQoHeads: 6,
  numKvHeads: 2,
  headDim: 64,
} as const;

const { vocabulary, hidden, layers, numQoHeads, numKvHeads, headDim } = MODEL;
const Q = numQoHeads * headDim;
const KV = numKvHeads * headDim;
const INNER = 4 * hidden;

interface Layer {
  readonly qkv: Float32Array;
  readonly out: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

/** Normal values, the same on every machine. */
function normals(count: number, seed: number, deviation: number): Float32Array {
  let state = seed;
  const uniform = () => {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    let x = Math.imul(state ^ state >>> 12, 0x297a2d39);
    x ^= x >>> 15;
    return ((x >>> 0) + 0.5) / 2 ** 32;
  };
  return Float32Array.from(
    { length: count },
    () => deviation * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}

const embeddings = normals(vocabulary * hidden, 1, 1);
const head = normals(vocabulary * hidden, 2, 1 / Math.sqrt(hidden));
const weights: readonly Layer[] = Array.from({ length: layers }, (_, i) => ({
  qkv: normals((Q + 2 * KV) * hidden, 10 * i + 11, 1.4 / Math.sqrt(hidden)),
  out: normals(hidden * Q, 10 * i + 12, 1 / Math.sqrt(Q)),
  up: normals(INNER * hidden, 10 * i + 13, 1.4 / Math.sqrt(hidden)),
  down: normals(hidden * INNER, 10 * i + 14, 1 / Math.sqrt(INNER)),
}));

/** Rows of a matrix times a vector. */
function multiply(matrix: Float32Array, vector: Float32Array, rows: number): Float32Array {
  const columns = vector.length;
  const result = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    let sum = 0;
    for (let i = 0, at = row * columns; i < columns; i++, at++) sum += matrix[at] * vector[i];
    result[row] = sum;
  }
  return result;
}

/** Root mean square normalization. */
function normalized(vector: Float32Array): Float32Array {
  const square = vector.reduce((sum, x) => sum + x * x, 0) / vector.length;
  return vector.map((x) => x / Math.sqrt(square + 1e-6));
}

function add(target: Float32Array, other: Float32Array): void {
  for (let i = 0; i < target.length; i++) target[i] += other[i];
}

/** What a token begins with. */
export function embed(token: number): Float32Array {
  return embeddings.slice(token * hidden, (token + 1) * hidden);
}

/** The queries, keys and values of tokens in a layer, one token after another. */
export function project(
  layer: number,
  states: readonly Float32Array[],
): { readonly q: Float32Array; readonly k: Float32Array; readonly v: Float32Array } {
  const q = new Float32Array(states.length * Q);
  const [k, v] = [new Float32Array(states.length * KV), new Float32Array(states.length * KV)];
  states.forEach((state, i) => {
    const row = multiply(weights[layer].qkv, normalized(state), Q + 2 * KV);
    q.set(row.subarray(0, Q), i * Q);
    k.set(row.subarray(Q, Q + KV), i * KV);
    v.set(row.subarray(Q + KV), i * KV);
  });
  return { q, k, v };
}

/** Adds a layer's attention and its feed-forward part to the tokens' states. */
export function finishLayer(
  layer: number,
  states: readonly Float32Array[],
  attention: Float32Array,
): void {
  const { out, up, down } = weights[layer];
  states.forEach((state, i) => {
    add(state, multiply(out, attention.subarray(i * Q, (i + 1) * Q), hidden));
    const inner = multiply(up, normalized(state), INNER).map((x) => x / (1 + Math.exp(-x)));
    add(state, multiply(down, inner, hidden));
  });
}

/** The most likely next token. */
export function nextToken(state: Float32Array): number {
  const logits = multiply(head, normalized(state), vocabulary);
  return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
}
