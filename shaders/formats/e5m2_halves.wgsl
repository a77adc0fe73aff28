// FP8 e5m2 by way of halves: a code is the high byte of a half, two codes an instruction, infinities
// and NaN included. A quad (4 elements) is one word.

alias Quad = u32;
@if(wide) alias Piece = vec4<u32>;
@else alias Piece = vec2<u32>;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(word: Quad) -> vec4<f32> {
  let even = unpack2x16float((word << 8u) & 0xff00ff00u);
  let odd = unpack2x16float(word & 0xff00ff00u);
  return vec4<f32>(even.x, odd.x, even.y, odd.y);
}

@if(wide) fn decode_piece(piece: Piece) -> array<vec4<f32>, 4> {
  return array<vec4<f32>, 4>(
    decode_quad(piece.x), decode_quad(piece.y), decode_quad(piece.z), decode_quad(piece.w),
  );
}

@else fn decode_piece(piece: Piece) -> array<vec4<f32>, 2> {
  return array<vec4<f32>, 2>(decode_quad(piece.x), decode_quad(piece.y));
}
