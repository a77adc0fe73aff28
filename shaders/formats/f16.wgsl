// float16: a quad (4 elements) is 2 words. Needs no f16 feature.

import package::formats::rounding::half_bits;

alias Quad = vec2<u32>;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(words: Quad) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn encode_quad(values: vec4<f32>) -> Quad {
  return vec2<u32>(
    half_bits(values.x) | (half_bits(values.y) << 16u),
    half_bits(values.z) | (half_bits(values.w) << 16u),
  );
}
