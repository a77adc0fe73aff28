/**
 * Where the numbers of the tests come from: the golden inputs' generator, and seeded normals.
 *
 * @module
 */

/** A 32-bit mixer; the golden inputs are defined by it. */
export function mix32(x: number): number {
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  x ^= x >>> 16;
  return x >>> 0;
}

/** Element `i` of the golden tensor with this seed: uniform in [-2, 2), exact in float16. */
export function goldenValue(i: number, seed: number): number {
  return ((mix32((i + Math.imul(seed, 0x9e3779b9)) | 0) >>> 21) - 1024) / 512;
}

/** The golden tensor of `length` elements with this seed. */
export function goldenValues(length: number, seed: number): Float32Array {
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = goldenValue(i, seed);
  return values;
}

/** Uniform numbers in (0, 1), the same for the same seed. */
export function uniform(seed: number): () => number {
  let i = 0;
  const offset = mix32(seed ^ 0x51ed270b);
  return () => (mix32((offset + Math.imul(++i, 0x9e3779b9)) | 0) + 0.5) / 2 ** 32;
}

/** `length` standard normals (Box and Muller), the same for the same seed. */
export function normals(length: number, seed: number): Float32Array {
  const next = uniform(seed);
  const values = new Float32Array(length);
  for (let i = 0; i < length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(next()));
    const angle = 2 * Math.PI * next();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < length) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** `length` floats of random bit patterns: every exponent, infinities and NaN among them. */
export function randomBits(length: number, seed: number): Float32Array {
  const bits = new Uint32Array(length);
  for (let i = 0; i < length; i++) bits[i] = mix32(Math.imul(seed, 0x9e3779b9) + i);
  return new Float32Array(bits.buffer);
}

/** The next float32 above `x` (`steps` of them; negative: below), through its bits. */
export function nextFloat32(x: number, steps: number = 1): number {
  const value = Float32Array.of(x);
  const bits = new Int32Array(value.buffer);
  // Negative floats are ordered backwards by their bits.
  const ordered = bits[0] < 0 ? -(bits[0] & 0x7fffffff) : bits[0];
  const moved = ordered + steps;
  bits[0] = moved < 0 ? -moved | 0x80000000 : moved;
  return value[0];
}
