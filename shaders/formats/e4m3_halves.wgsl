// FP8 e4m3fn by way of halves: the code's 7 bits are put where a half has its exponent and mantissa,
// which gives value · 2^-8, two codes an instruction. A quad (4 elements) is one word.
//
// NaN codes (0x7f, 0xff) decode to ±480 here. Whoever uses this gathers nan_marks (pieces.wgsl) and
// puts the NaN back: carrying it into the exponent costs 1.5 instructions an element instead of 0.7.

alias Quad = u32;
const UNIT = 256.0; // what decoded values must be multiplied with

// The halves of the even bytes, and of the odd ones.
fn even_halves(word: Quad) -> u32 {
  // Shifted by 7, the sign stands one bit low; adding that bit carries it into place.
  return (((word & 0x00ff00ffu) << 7u) + 0x40004000u) & 0xbf80bf80u;
}
fn odd_halves(word: Quad) -> u32 {
  return ((word >> 1u) & 0x3f803f80u) | (word & 0x80008000u);
}

fn decode_quad(word: Quad) -> vec4<f32> {
  let low = unpack2x16float(even_halves(word));
  let high = unpack2x16float(odd_halves(word));
  return vec4<f32>(low.x, high.x, low.y, high.y);
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
