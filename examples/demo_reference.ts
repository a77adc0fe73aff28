/** What the demo is checked against: seeded values and decode attention in float64. */

/** `count` seeded normal values (Box and Muller 1958, over mulberry32). */
export function normals(count: number, seed: number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count + count % 2);
  let state = Math.imul(seed, 0x9e3779b9);
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values.subarray(0, count);
}

/** The sizes of a padded NHD cache with one query head a KV head. */
export interface CacheShape {
  batch: number;
  length: number;
  heads: number;
  headDim: number;
}

/** Decode attention in float64, plainly. */
export function float64Decode(
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  { batch, length, heads, headDim }: CacheShape,
): Float64Array {
  const out = new Float64Array(batch * heads * headDim);
  const logits = new Float64Array(length);
  for (let row = 0; row < batch * heads; row++) {
    const first = (Math.floor(row / heads) * length * heads + row % heads) * headDim;
    const query = row * headDim;
    let max = -Infinity;
    for (let token = 0; token < length; token++) {
      const key = first + token * heads * headDim;
      let sum = 0;
      for (let d = 0; d < headDim; d++) sum += q[query + d] * k[key + d];
      logits[token] = sum / Math.sqrt(headDim);
      max = Math.max(max, logits[token]);
    }
    let denominator = 0;
    for (let token = 0; token < length; token++) {
      const weight = Math.exp(logits[token] - max);
      const value = first + token * heads * headDim;
      denominator += weight;
      for (let d = 0; d < headDim; d++) out[query + d] += weight * v[value + d];
    }
    for (let d = 0; d < headDim; d++) out[query + d] /= denominator;
  }
  return out;
}

/** The largest difference of two outputs; infinite where one holds a NaN. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i] - b[i]);
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}
