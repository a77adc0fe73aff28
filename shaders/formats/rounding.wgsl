// Rounding float32 to smaller formats, to nearest even, with integers: WGSL fixes no rounding mode for
// pack2x16float, and lets floating point flush subnormals. Four values at a time and without branches,
// which compiles several times faster.

const MAGNITUDE = 0x7fffffffu;
const INFINITE = 0x7f800000u;

// The bits that are left when `bits` is shifted right, rounded to nearest even.
fn shifted_right(bits: vec4<u32>, shift: vec4<u32>) -> vec4<u32> {
  let kept = bits >> shift;
  let half = vec4<u32>(1u) << (shift - 1u);
  let rest = bits & ((half << vec4<u32>(1u)) - 1u);
  let is_up = (rest > half) | ((rest == half) & ((kept & vec4<u32>(1u)) == vec4<u32>(1u)));
  return kept + select(vec4<u32>(0u), vec4<u32>(1u), is_up);
}

// The magnitude's code in a format with so many mantissa bits, whose least normal number has the
// float32 exponent field `least`. Infinities and NaN are for the caller.
fn small_code(magnitude: vec4<u32>, mantissa_bits: u32, least: u32) -> vec4<u32> {
  let shift = 23u - mantissa_bits;
  let normal = shifted_right(magnitude - (least - 1u) * 0x800000u, vec4<u32>(shift));
  // Below the least normal number the code counts its units; what is far below rounds to none.
  let exponent = min(magnitude >> vec4<u32>(23u), vec4<u32>(least));
  let mantissa = (magnitude & vec4<u32>(0x7fffffu)) | vec4<u32>(0x800000u);
  let small = shifted_right(mantissa, min(shift + least - exponent, vec4<u32>(25u)));
  return select(normal, small, magnitude < vec4<u32>(least * 0x800000u));
}

fn half_bits(values: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(values);
  let magnitude = bits & vec4<u32>(MAGNITUDE);
  // 65520 and more round to infinity.
  var code = select(
    small_code(magnitude, 10u, 113u), vec4<u32>(0x7c00u), magnitude >= vec4<u32>(0x477ff000u),
  );
  code = select(code, vec4<u32>(0x7e00u), magnitude > vec4<u32>(INFINITE));
  return ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u)) | code;
}

fn bfloat_bits(values: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(values);
  let rounded = (bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))) >> vec4<u32>(16u);
  // NaN stays NaN.
  let nan = (bits >> vec4<u32>(16u)) | vec4<u32>(0x40u);
  return select(rounded, nan, (bits & vec4<u32>(MAGNITUDE)) > vec4<u32>(INFINITE));
}

// FP8: magnitudes beyond `largest` (a code), infinities too, saturate; NaN is 0x7f. One word.
fn fp8_word(values: vec4<f32>, mantissa_bits: u32, least: u32, largest: u32) -> u32 {
  let bits = bitcast<vec4<u32>>(values);
  let magnitude = bits & vec4<u32>(MAGNITUDE);
  let code = min(small_code(magnitude, mantissa_bits, least), vec4<u32>(largest)) |
    ((bits >> vec4<u32>(24u)) & vec4<u32>(0x80u));
  let codes = select(code, vec4<u32>(0x7fu), magnitude > vec4<u32>(INFINITE)) <<
    vec4<u32>(0u, 8u, 16u, 24u);
  return codes.x | codes.y | codes.z | codes.w;
}
