// FP8 e4m3fn by way of halves: the code's 7 bits are put where a half has its exponent and mantissa,
// which gives value · 2^-8, two codes an instruction. A quad (4 elements) is one word.
//
// NaN codes (0x7f, 0xff) decode to ±480 here. Whoever uses this gathers nan_marks (pieces.wgsl) and
// puts the NaN back: carrying it into the exponent costs 1.5 instructions an element instead of 0.7.

alias Quad = u32;
const UNIT = 256.0; // what decoded values must be multiplied with

fn decode_quad(word: Quad) -> vec4<f32> {
  // Even bytes: shifted by 7, the sign stands one bit low; adding that bit carries it into place.
  let even = (((word & 0x00ff00ffu) << 7u) + 0x40004000u) & 0xbf80bf80u;
  let odd = ((word >> 1u) & 0x3f803f80u) | (word & 0x80008000u);
  let low = unpack2x16float(even);
  let high = unpack2x16float(odd);
  return vec4<f32>(low.x, high.x, low.y, high.y);
}
