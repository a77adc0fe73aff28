// float16: a quad (4 elements) is 2 words. Needs no f16 feature.

import package::formats::rounding::half_bits;

alias Quad = vec2<u32>;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(words: Quad) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn encode_quad(values: vec4<f32>) -> Quad {
  let bits = half_bits(values);
  return bits.xz | (bits.yw << vec2<u32>(16u));
}
