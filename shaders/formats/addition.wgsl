// Rounding float32 to smaller formats by one float addition, a third of the instructions that integers
// take (rounding.wgsl). It is right where the device's adder rounds to nearest even, which WGSL does
// not promise: rounding_probe.wgsl tests it, and what fails goes by integers.

const MAGNITUDE = vec4<u32>(0x7fffffffu);
const INFINITE = vec4<u32>(0x7f800000u);

// The magnitude's code in a format with so many mantissa bits, whose least normal number has the
// float32 exponent field `least`. NaN has the code of `limit`, float32 bits that magnitudes are cut to.
//
// A power of two whose last place is the format's step at the magnitude makes the adder round to that
// step; the sum's low bits count the steps, from the first code of that exponent on.
fn added_code(
  magnitudes: vec4<u32>, mantissa_bits: u32, least: u32, limit: u32,
) -> vec4<u32> {
  let shift = 23u - mantissa_bits;
  let magnitude = min(magnitudes, vec4<u32>(limit));
  let exponent = max(magnitude & INFINITE, vec4<u32>(least << 23u));
  let rounder = exponent + vec4<u32>(shift << 23u);
  let sum = bitcast<vec4<u32>>(bitcast<vec4<f32>>(magnitude) + bitcast<vec4<f32>>(rounder));
  return (sum - rounder) + (exponent >> vec4<u32>(shift)) - vec4<u32>(least << mantissa_bits);
}

// FP8: magnitudes beyond `limit`, infinities too, saturate; NaN is 0x7f. One word.
fn added_fp8_word(values: vec4<f32>, mantissa_bits: u32, least: u32, limit: u32) -> u32 {
  let bits = bitcast<vec4<u32>>(values);
  let magnitude = bits & MAGNITUDE;
  let code = added_code(magnitude, mantissa_bits, least, limit) |
    ((bits >> vec4<u32>(24u)) & vec4<u32>(0x80u));
  let codes = select(code, vec4<u32>(0x7fu), magnitude > INFINITE) << vec4<u32>(0u, 8u, 16u, 24u);
  return codes.x | codes.y | codes.z | codes.w;
}

fn added_half_bits(values: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(values);
  let magnitude = bits & MAGNITUDE;
  // 65536 has the code of infinity.
  let code = added_code(magnitude, 10u, 113u, 0x47800000u);
  return select(code, vec4<u32>(0x7e00u), magnitude > INFINITE) |
    ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}
