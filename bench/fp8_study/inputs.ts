/**
 * What the study quantizes: keys, values and queries of several kinds, the same in every run.
 *
 * @module
 */

/** Sizes of a decode call. */
export interface Sizes {
  readonly length: number;
  readonly numKvHeads: number;
  readonly numQoHeads: number;
  readonly headDim: number;
}

/** One decode call: q [Hq, D], k and v [Hkv, L, D]. */
export interface Inputs extends Sizes {
  readonly q: Float32Array<ArrayBuffer>;
  readonly k: Float32Array<ArrayBuffer>;
  readonly v: Float32Array<ArrayBuffer>;
}

/** The kinds of data. */
export type Kind =
  | "normal"
  | "heavy tails"
  | "unequal heads"
  | "outliers"
  | "outliers, q alike"
  | "outliers, any q"
  | "offsets"
  | "spikes";

/** Channels of each head that are larger, and how many times. */
const OUTLIERS: readonly number[] = [10, 20, 50, 100];
/** Natural units: attention that neither picks one key nor takes all alike. */
const LOGIT_DEVIATION = 2;

/** Standard normals from xorshift128+ and Box and Muller. */
function normalSource(seed: number): () => number {
  let [a, b] = [seed ^ 0x9e3779b9, Math.imul(seed + 1, 0x85ebca6b)];
  let [c, d] = [0x1234567 ^ seed, 0x6d2b79f5];
  const next = () => { // sfc32
    const sum = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return ((sum >>> 0) + 0.5) / 2 ** 32;
  };
  for (let i = 0; i < 20; i++) next();
  let spare: number | null = null;
  return () => {
    if (spare !== null) {
      const value = spare;
      spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(next()));
    const angle = 2 * Math.PI * next();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** `length` normals of a seed. */
export function normals(length: number, seed: number): Float32Array<ArrayBuffer> {
  const normal = normalSource(seed);
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = normal();
  return values;
}

/** Student's t of three degrees of freedom. */
export function heavyTails(length: number, seed: number): Float32Array<ArrayBuffer> {
  const normal = normalSource(seed);
  const square = () => normal() ** 2;
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) {
    values[i] = normal() / Math.sqrt((square() + square() + square()) / 3);
  }
  return values;
}

/** N(0, 1), with N(0, 100) on top of one value of a thousand. */
function spikes(length: number, seed: number): Float32Array<ArrayBuffer> {
  const normal = normalSource(seed);
  // One of a thousand normals is beyond 3.2905.
  return normals(length, seed + 1).map((x) => Math.abs(normal()) > 3.2905 ? x + 10 * normal() : x);
}

/** How many times larger a channel of a head is; 1 for most. */
function outlierOf(channel: number, head: number, dim: number): number {
  const spacing = Math.floor(dim / OUTLIERS.length);
  const place = (channel + 7 * head) % dim;
  return place % spacing === 0 ? OUTLIERS[place / spacing] ?? 1 : 1;
}

/** The inputs of a kind. */
export function makeInputs(kind: Kind, sizes: Sizes, seed: number): Inputs {
  const { length, numKvHeads, numQoHeads, headDim: dim } = sizes;
  const count = length * numKvHeads * dim;
  const source = kind === "heavy tails" ? heavyTails : kind === "spikes" ? spikes : normals;
  const k = source(count, seed);
  const v = source(count, seed + 100);
  const q = (kind === "spikes" ? spikes : normals)(numQoHeads * dim, seed + 200);
  const group = numQoHeads / numKvHeads;
  const kHead = (i: number) => Math.floor(i / (length * dim));
  const factor = (i: number) => outlierOf(i % dim, kHead(i), dim);
  const qFactor = (i: number) => outlierOf(i % dim, Math.floor(i / dim / group), dim);
  if (kind === "unequal heads") {
    // From 1 down to 1 / 10,000.
    const size = (i: number) => 10 ** (-4 * kHead(i) / Math.max(1, numKvHeads - 1));
    k.forEach((x, i) => k[i] = x * size(i));
    v.forEach((x, i) => v[i] = x * size(i));
  } else if (kind === "offsets") {
    k.forEach((x, i) => k[i] = factor(i) > 1 ? x + factor(i) : x);
  } else if (kind.startsWith("outliers")) {
    k.forEach((x, i) => k[i] = x * factor(i));
    if (kind === "outliers") q.forEach((x, i) => q[i] = x / qFactor(i));
    if (kind === "outliers, q alike") q.forEach((x, i) => q[i] = x * qFactor(i));
  }
  const inputs = { ...sizes, q, k, v };
  scaleQueries(inputs);
  return inputs;
}

/** Gives each query the size with which its logits spread as `LOGIT_DEVIATION` says. */
function scaleQueries({ length, numKvHeads, numQoHeads, headDim: dim, q, k }: Inputs): void {
  const group = numQoHeads / numKvHeads;
  for (let head = 0; head < numQoHeads; head++) {
    const row = q.subarray(head * dim, (head + 1) * dim);
    const first = Math.floor(head / group) * length * dim;
    let [sum, squares] = [0, 0];
    for (let j = 0; j < length; j++) {
      let dot = 0;
      for (let d = 0; d < dim; d++) dot += row[d] * k[first + j * dim + d];
      dot /= Math.sqrt(dim);
      sum += dot;
      squares += dot * dot;
    }
    const deviation = Math.sqrt(squares / length - (sum / length) ** 2);
    row.forEach((x, d) => row[d] = x * LOGIT_DEVIATION / deviation);
  }
}
