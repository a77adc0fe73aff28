/**
 * Position encodings for the oracle, each straight from its definition. Nothing is shared with the
 * library.
 *
 * @module
 */

/**
 * ALiBi's slopes as its paper builds them: a geometric sequence for a power of two of heads; for
 * other numbers the nearest power of two below, then every other slope of twice as many.
 */
export function slopesOf(heads: number): number[] {
  let power = 1;
  while (2 * power <= heads) power *= 2;
  if (power === heads) {
    const ratio = 2 ** (-8 / heads);
    return Array.from({ length: heads }, (_, i) => ratio ** (i + 1));
  }
  const between = slopesOf(2 * power).filter((_, i) => i % 2 === 0);
  return [...slopesOf(power), ...between.slice(0, heads - power)];
}

/** How fast rotary encoding turns. */
export interface RopeSpeed {
  readonly scale: number;
  readonly theta: number;
}

/**
 * Turns a row at a position: dims i and i + D/2 are the coordinates of a point, turned by
 * position / scale · theta^(-2i / D).
 *
 * Angles are float64 in every precision: no float32 can hold the angle of position 100,000 to a
 * hundredth, and a bound that allows for it would allow for anything.
 */
export function rotate(
  row: ArrayLike<number>,
  position: number,
  { scale, theta }: RopeSpeed,
  round: (x: number) => number,
): Float64Array {
  const half = row.length / 2;
  const turned = new Float64Array(row.length);
  for (let i = 0; i < half; i++) {
    const angle = position / scale * theta ** (-2 * i / row.length);
    const [cosine, sine] = [round(Math.cos(angle)), round(Math.sin(angle))];
    const [x, y] = [row[i], row[half + i]];
    turned[i] = round(round(x * cosine) - round(y * sine));
    turned[half + i] = round(round(x * sine) + round(y * cosine));
  }
  return turned;
}
