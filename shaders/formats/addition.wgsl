// Rounding float32 to smaller formats by one float addition, a third of the instructions that integers
// take (rounding.wgsl). It is right where the device's adder rounds to nearest even, which WGSL does
// not promise: rounding_probe.wgsl tests it, and what fails goes by integers.

const MAGNITUDE = vec4<u32>(0x7fffffffu);
const INFINITE = vec4<u32>(0x7f800000u);

// A format with so many mantissa bits, whose least normal number has the float32 exponent field
// `least`, and the float32 bits that magnitudes are cut to.
struct Format {
  mantissa_bits: u32,
  least: u32,
  limit: u32,
}

// What is to be taken from `added_codes`: for all codes of a word at once, since that costs less.
fn surplus(format: Format) -> u32 {
  return ((23u - format.mantissa_bits) << 23u) + (format.least << format.mantissa_bits);
}

// The codes of magnitudes, plus `surplus`. NaN has the code of the limit.
//
// A power of two whose last place is the format's step at the magnitude makes the adder round to that
// step; the sum's low bits count the steps, from the first code of that exponent on.
fn added_codes(magnitudes: vec4<u32>, format: Format) -> vec4<u32> {
  let shift = 23u - format.mantissa_bits;
  let magnitude = min(magnitudes, vec4<u32>(format.limit));
  let exponent = max(magnitude & INFINITE, vec4<u32>(format.least << 23u));
  let rounder = exponent + vec4<u32>(shift << 23u);
  let sum = bitcast<vec4<u32>>(bitcast<vec4<f32>>(magnitude) + bitcast<vec4<f32>>(rounder));
  return sum + (exponent >> vec4<u32>(shift)) - exponent;
}

// FP8: magnitudes beyond the limit, infinities too, saturate; NaN is 0x7f. One word.
fn added_fp8_word(values: vec4<f32>, format: Format) -> u32 {
  let bits = bitcast<vec4<u32>>(values);
  let magnitude = bits & MAGNITUDE;
  let more = surplus(format);
  let signed = added_codes(magnitude, format) + (bits >> vec4<u32>(31u)) * 0x80u;
  let codes = select(signed, vec4<u32>(0x7fu + more), magnitude > INFINITE);
  return codes.x + codes.y * 0x100u + codes.z * 0x10000u + codes.w * 0x1000000u - more * 0x1010101u;
}

// Halves, two a word.
fn added_half_words(values: vec4<f32>) -> vec2<u32> {
  let format = Format(10u, 113u, 0x47800000u); // 65536 has the code of infinity
  let bits = bitcast<vec4<u32>>(values);
  let magnitude = bits & MAGNITUDE;
  let more = surplus(format);
  let codes = select(added_codes(magnitude, format), vec4<u32>(0x7e00u + more), magnitude > INFINITE) +
    (bits >> vec4<u32>(31u)) * 0x8000u;
  return codes.xz + codes.yw * 0x10000u - vec2<u32>(more * 0x10001u);
}
