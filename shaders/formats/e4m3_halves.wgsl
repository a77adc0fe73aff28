// FP8 e4m3fn by way of halves: the code's 7 bits are put where a half has its exponent and mantissa,
// which gives value · 2^-8, two codes an instruction. A quad (4 elements) is one word.

alias Quad = u32;
@if(wide) alias Piece = vec4<u32>;
@else alias Piece = vec2<u32>;
const UNIT = 256.0; // what decoded values must be multiplied with

fn decode_quad(word: Quad) -> vec4<f32> {
  let even = (word & 0x007f007fu) << 7u;
  let odd = (word & 0x7f007f00u) >> 1u;
  let low = unpack2x16float(even | nan_exponent(even) | ((word & 0x00800080u) << 8u));
  let high = unpack2x16float(odd | nan_exponent(odd) | (word & 0x80008000u));
  return vec4<f32>(low.x, high.x, low.y, high.y);
}

// Code 0x7f, which would be 480, carries into the top of the exponent, and so becomes a NaN.
fn nan_exponent(magnitudes: u32) -> u32 {
  return (magnitudes + 0x00800080u) & 0x40004000u;
}

@if(wide) fn decode_piece(piece: Piece) -> array<vec4<f32>, 4> {
  return array<vec4<f32>, 4>(
    decode_quad(piece.x), decode_quad(piece.y), decode_quad(piece.z), decode_quad(piece.w),
  );
}

@else fn decode_piece(piece: Piece) -> array<vec4<f32>, 2> {
  return array<vec4<f32>, 2>(decode_quad(piece.x), decode_quad(piece.y));
}
