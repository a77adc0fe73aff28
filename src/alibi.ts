/**
 * The slopes of ALiBi (Press, Smith and Lewis 2022), as FlashInfer's `get_alibi_slopes` has them.
 *
 * @module
 */

/**
 * A slope for each of `heads` query heads: 2^(-8/n), 2^(-16/n), ... for the largest power of two n;
 * heads beyond take every other slope of 2n heads.
 */
export function alibiSlopes(heads: number): Float32Array<ArrayBuffer> {
  const n = 2 ** Math.floor(Math.log2(heads));
  return Float32Array.from(
    { length: heads },
    (_, head) => head < n ? 2 ** (-8 * (head + 1) / n) : 2 ** (-4 * (2 * (head - n) + 1) / n),
  );
}
