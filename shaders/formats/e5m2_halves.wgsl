// FP8 e5m2 by way of halves: a code is the high byte of a half, two codes an instruction, infinities
// and NaN included. A quad (4 elements) is one word.

alias Quad = u32;
const UNIT = 1.0; // what decoded values must be multiplied with

// The halves of the even bytes, and of the odd ones.
fn even_halves(word: Quad) -> u32 {
  return (word << 8u) & 0xff00ff00u;
}
fn odd_halves(word: Quad) -> u32 {
  return word & 0xff00ff00u;
}

fn decode_quad(word: Quad) -> vec4<f32> {
  let even = unpack2x16float(even_halves(word));
  let odd = unpack2x16float(odd_halves(word));
  return vec4<f32>(even.x, odd.x, even.y, odd.y);
}

// Two elements a word, as tiles in workgroup memory hold them.
fn pairs(word: Quad) -> vec2<u32> {
  let even = even_halves(word);
  let odd = odd_halves(word);
  return vec2<u32>((even & 0xffffu) | (odd << 16u), (even >> 16u) | (odd & 0xffff0000u));
}

fn unpack_pair(word: u32) -> vec2<f32> {
  return unpack2x16float(word);
}

fn is_finite_pair(word: u32) -> bool {
  return (word & 0x7c00u) != 0x7c00u && (word & 0x7c000000u) != 0x7c000000u;
}
