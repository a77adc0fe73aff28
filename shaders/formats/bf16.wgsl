// bfloat16, the high half of a float32: a quad (4 elements) is 2 words.

import package::formats::rounding::bfloat_bits;

alias Quad = vec2<u32>;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(words: Quad) -> vec4<f32> {
  let low = words << vec2<u32>(16u);
  let high = words & vec2<u32>(0xffff0000u);
  return bitcast<vec4<f32>>(vec4<u32>(low.x, high.x, low.y, high.y));
}

fn encode_quad(values: vec4<f32>) -> Quad {
  let bits = bfloat_bits(values);
  return bits.xz | (bits.yw << vec2<u32>(16u));
}
