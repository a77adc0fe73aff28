// float16: a quad (4 elements) is 2 words. Needs no f16 feature.

import package::formats::rounding::half_bits;

alias Quad = vec2<u32>;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(words: Quad) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

// Two elements a word, as tiles in workgroup memory hold them.
fn pairs(words: Quad) -> vec2<u32> {
  return words;
}

fn unpack_pair(word: u32) -> vec2<f32> {
  return unpack2x16float(word);
}

fn is_finite_pair(word: u32) -> bool {
  return (word & 0x7c00u) != 0x7c00u && (word & 0x7c000000u) != 0x7c000000u;
}

fn encode_quad(values: vec4<f32>) -> Quad {
  let bits = half_bits(values);
  return bits.xz | (bits.yw << vec2<u32>(16u));
}
