// Rounding float32 to 16-bit formats, to nearest even, with integers: WGSL fixes no rounding mode for
// pack2x16float, and lets floating point flush subnormals.

fn half_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u; // NaN
  }
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u; // 65520 and more round to infinity
  }
  if (magnitude >= 0x38800000u) {
    let rebiased = magnitude - (112u << 23u);
    return sign | ((rebiased + 0xfffu + ((rebiased >> 13u) & 1u)) >> 13u);
  }
  // Below 2^-14 the result counts units of 2^-24.
  let exponent = magnitude >> 23u;
  if (exponent < 102u) {
    return sign; // below half a unit
  }
  let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  let shift = 126u - exponent;
  let kept = mantissa >> shift;
  let rest = mantissa & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return sign | (kept + select(0u, 1u, rest > half || (rest == half && (kept & 1u) == 1u)));
}

fn bfloat_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return (bits >> 16u) | 0x40u; // NaN stays NaN
  }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

// The code of an FP8 format with so many mantissa bits, whose least normal number has the float32
// exponent field `least`; magnitudes beyond `largest` (a code), infinities too, saturate.
fn fp8_code(bits: u32, mantissa_bits: u32, least: u32, largest: u32) -> u32 {
  let sign = (bits >> 24u) & 0x80u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0x7fu; // NaN
  }
  let exponent = magnitude >> 23u;
  if (exponent >= least) {
    let shift = 23u - mantissa_bits;
    let rebiased = magnitude - ((least - 1u) << 23u);
    let rounded = (rebiased + (1u << (shift - 1u)) - 1u + ((rebiased >> shift) & 1u)) >> shift;
    return sign | min(rounded, largest);
  }
  // Subnormal: the result counts units of 2^(least - 127 - mantissa_bits).
  let shift = 23u - mantissa_bits + (least - exponent);
  if (shift > 25u) {
    return sign; // below half a unit
  }
  let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  let kept = mantissa >> shift;
  let rest = mantissa & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return sign | (kept + select(0u, 1u, rest > half || (rest == half && (kept & 1u) == 1u)));
}
