// FP8 e5m2 with integer arithmetic only, for devices on which halves fail their self-test
// (they may lose their subnormals) or are slower. A quad (4 elements) is one word.

alias Quad = u32;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(word: Quad) -> vec4<f32> {
  let codes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
  let sign = (codes & vec4<u32>(0x80u)) << vec4<u32>(24u);
  let magnitude = codes & vec4<u32>(0x7fu);
  let normal = (magnitude << vec4<u32>(21u)) + vec4<u32>(112u << 23u);
  // Subnormal codes are counts of 2^-16; exponent 31 is infinity or NaN.
  let small = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0.0000152587890625);
  let finite = select(normal, small, magnitude < vec4<u32>(4u));
  let special = (magnitude << vec4<u32>(21u)) | vec4<u32>(0x7f800000u);
  let bits = select(finite, special, magnitude >= vec4<u32>(0x7cu));
  return bitcast<vec4<f32>>(sign | bits);
}
