/**
 * What calibration knows of values that it does not keep: a histogram of magnitudes with the sums
 * that errors are computed from. Pure.
 *
 * A bin is 2^-8 of its power of two wide, and a row of 256 bins is made when a value first falls
 * into its power: 6 kB for each of the thirty or so that real data meets, however much data there is.
 *
 * @module
 */

/** Bins of a power of two. */
const BINS = 256;

/** What of a float32's bits says the bin. */
const BIN_SHIFT = 15;

/** The bins of one power of two. */
interface Row {
  readonly counts: Float64Array;
  readonly sums: Float64Array;
  readonly squares: Float64Array;
}

/** Values rounded to what a format with some scale can hold. */
export type Rounding = (values: Float32Array<ArrayBuffer>) => Float32Array<ArrayBuffer>;

/** A histogram of |x|, which forgets the values. */
export class MagnitudeHistogram {
  /** Finite values. */
  count = 0;
  /** Values left out: NaN and infinities. */
  nonFinite = 0;
  /** The largest finite |x|. */
  max = 0;
  /** Values that are 0; the bins hold the others. */
  #zeros = 0;
  /** By biased exponent. */
  readonly #rows: (Row | undefined)[] = new Array(255).fill(undefined);

  /** Takes in `length` values from `start` on. */
  add(values: Float32Array, start: number, length: number): void {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = start; i < start + length; i++) {
      const magnitude = bits[i] & 0x7fffffff;
      if (magnitude >= 0x7f800000) {
        this.nonFinite++;
        continue;
      }
      this.count++;
      if (magnitude === 0) {
        this.#zeros++;
        continue;
      }
      const exponent = magnitude >>> 23;
      const row = this.#rows[exponent] ?? this.#addRow(exponent);
      const bin = (magnitude >>> BIN_SHIFT) & (BINS - 1);
      const x = Math.abs(values[i]);
      row.counts[bin]++;
      row.sums[bin] += x;
      row.squares[bin] += x * x;
      if (x > this.max) this.max = x;
    }
  }

  #addRow(exponent: number): Row {
    const array = () => new Float64Array(BINS);
    return this.#rows[exponent] = { counts: array(), sums: array(), squares: array() };
  }

  /**
   * The magnitude that `percent` of the values do not exceed. Exact for 100, else within a bin, in
   * which values count as spread evenly.
   */
  percentile(percent: number): number {
    if (percent === 100) return this.max;
    const rank = this.count * percent / 100;
    let below = this.#zeros;
    if (rank <= below) return 0;
    for (const { low, high, count } of this.#bins()) {
      if (below + count >= rank) {
        return Math.min(this.max, low + (high - low) * (rank - below) / count);
      }
      below += count;
    }
    return this.max;
  }

  /** The share of values above `limit`; 0 where there are none. */
  shareAbove(limit: number): number {
    if (limit >= this.max) return 0;
    let above = 0;
    for (const { low, high, count } of this.#bins()) {
      const part = (high - limit) / (high - low);
      above += count * Math.min(1, Math.max(0, part));
    }
    return above / this.count;
  }

  /**
   * Signal to noise of rounding, in dB: sum of x² over sum of (x - rounded x)². A bin's values are
   * rounded as their mean is. Where the border between two codes cuts a bin, both are about equally
   * far, so that next to nothing is wrong.
   */
  sqnr(round: Rounding): number {
    let signal = 0;
    let noise = 0;
    for (const row of this.#rows) {
      if (row === undefined) continue;
      const { counts, sums, squares } = row;
      const rounded = round(
        Float32Array.from(sums, (sum, i) => counts[i] > 0 ? sum / counts[i] : 0),
      );
      for (let i = 0; i < BINS; i++) {
        signal += squares[i];
        // Below 0 by the rounding of the sums only.
        noise += Math.max(0, squares[i] + rounded[i] * (counts[i] * rounded[i] - 2 * sums[i]));
      }
    }
    return noise === 0 ? Infinity : 10 * Math.log10(signal / noise);
  }

  /** The bins that hold values, smallest first. */
  *#bins(): Generator<{ low: number; high: number; count: number }> {
    for (let exponent = 0; exponent < this.#rows.length; exponent++) {
      const row = this.#rows[exponent];
      if (row === undefined) continue;
      const width = 2 ** (Math.max(exponent, 1) - 127) / BINS;
      for (let bin = 0; bin < BINS; bin++) {
        const count = row.counts[bin];
        if (count === 0) continue;
        const low = (bin + (exponent === 0 ? 0 : BINS)) * width;
        yield { low, high: low + width, count };
      }
    }
  }
}
