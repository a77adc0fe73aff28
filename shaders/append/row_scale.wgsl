// The scale of a row that goes to FP8, as src/row_scale.ts has it, to the bit:
//   scale = m · (1 / L),   factor = L / m
// with m the row's largest finite magnitude and L the format's largest number, 1.75 · 2^EXPONENT.

import constants::EXPONENT;

const INFINITE = 0x7f800000u;
const ONE = 0x3f800000u;
const LEAST_MAGNITUDE = 0x17800000u; // 2^-80
const MANTISSA = 0x7fffffu;
const HIDDEN_BIT = 0x800000u;
// 1.75, as a float of bits.
const LARGEST_MANTISSA = 0x3fe00000u;

struct RowScale {
  factor: f32,
  scale: f32,
}

// The bits of a quad's largest finite magnitude, which are ordered as magnitudes are; 0 for none.
fn largest_magnitude(quad: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(quad) & vec4<u32>(0x7fffffffu);
  let finite = select(vec4<u32>(0u), bits, bits < vec4<u32>(INFINITE));
  return max(max(finite.x, finite.y), max(finite.z, finite.w));
}

fn row_scale(largest: u32) -> RowScale {
  if (largest == 0u) {
    return RowScale(1.0, 1.0);
  }
  let bits = max(largest, LEAST_MAGNITUDE);
  // 1 / L is a float of the same mantissa as 1 / 1.75.
  let inverse = bitcast<f32>(0x3f124925u - (EXPONENT << 23u));
  return RowScale(quotient(bits), bitcast<f32>(bits) * inverse);
}

// L / m, rounded to nearest.
fn quotient(bits: u32) -> f32 {
  let mantissa = (bits & MANTISSA) | HIDDEN_BIT;
  let is_above = (bits & MANTISSA) > (LARGEST_MANTISSA & MANTISSA);
  // Of mantissas, 1.75 or 3.5 over [1, 2): a quotient in [1, 2).
  let near = select(1.75, 3.5, is_above) / bitcast<f32>(ONE | (bits & MANTISSA));
  let units = nearest_units(u32(near * 8388608.0), mantissa);
  let exponent = 254u + EXPONENT - (bits >> 23u) - select(0u, 1u, is_above);
  return bitcast<f32>((exponent << 23u) | (units & MANTISSA));
}

// Division in WGSL may be off by some units in the last place, 2^-23 here. What is left of it,
// 1.75 · 2^46 - units · mantissa or twice the first, tells how far it is off, and is right modulo 2^32, of
// which the first is a multiple. No quotient lies in the middle of two floats.
fn nearest_units(near: u32, mantissa: u32) -> u32 {
  var units = bitcast<i32>(near);
  var rest = bitcast<i32>(0u - near * mantissa);
  let divisor = bitcast<i32>(mantissa);
  @unroll for (var i = 0u; i < 4u; i++) {
    let step = select(0, 1, 2 * rest > divisor) - select(0, 1, 2 * rest < -divisor);
    units += step;
    rest -= step * divisor;
  }
  return bitcast<u32>(units);
}
