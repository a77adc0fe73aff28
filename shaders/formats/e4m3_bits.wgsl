// FP8 e4m3fn with integer arithmetic only, for queries, and for devices on which halves fail their self-test
// (they may lose their subnormals) or are slower. A quad (4 elements) is one word.

alias Quad = u32;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(word: Quad) -> vec4<f32> {
  let codes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
  let sign = (codes & vec4<u32>(0x80u)) << vec4<u32>(24u);
  let magnitude = codes & vec4<u32>(0x7fu);
  let normal = (magnitude << vec4<u32>(20u)) + vec4<u32>(120u << 23u);
  // Subnormal codes are counts of 2^-9.
  let small = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0.001953125);
  let finite = select(normal, small, magnitude < vec4<u32>(8u));
  let bits = select(finite, vec4<u32>(0x7fc00000u), magnitude == vec4<u32>(0x7fu));
  return bitcast<vec4<f32>>(sign | bits);
}
