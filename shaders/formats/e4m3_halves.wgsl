// FP8 e4m3fn by way of halves: the code's 7 bits are put where a half has its exponent and mantissa,
// which gives value · 2^-8, two codes an instruction. A quad (4 elements) is one word.
//
// Code 0x7f (NaN) would become 480, so words that hold one take the slow way.

alias Quad = u32;
@if(wide) alias Piece = vec4<u32>;
@else alias Piece = vec2<u32>;
const UNIT = 256.0; // what decoded values must be multiplied with

fn decode_quad(word: Quad) -> vec4<f32> {
  let even = unpack2x16float(((word & 0x00800080u) << 8u) | ((word & 0x007f007fu) << 7u));
  let odd = unpack2x16float((word & 0x80008000u) | ((word & 0x7f007f00u) >> 1u));
  let values = vec4<f32>(even.x, odd.x, even.y, odd.y);
  // A magnitude of 0x7f carries into the byte's sign bit when 1 is added.
  if ((((word & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u) != 0u) {
    return with_nan(word, values);
  }
  return values;
}

fn with_nan(word: u32, values: vec4<f32>) -> vec4<f32> {
  let magnitudes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0x7fu);
  let bits = select(bitcast<vec4<u32>>(values), vec4<u32>(0x7fc00000u), magnitudes == vec4<u32>(0x7fu));
  return bitcast<vec4<f32>>(bits);
}

@if(wide) fn decode_piece(piece: Piece) -> array<vec4<f32>, 4> {
  return array<vec4<f32>, 4>(
    decode_quad(piece.x), decode_quad(piece.y), decode_quad(piece.z), decode_quad(piece.w),
  );
}

@else fn decode_piece(piece: Piece) -> array<vec4<f32>, 2> {
  return array<vec4<f32>, 2>(decode_quad(piece.x), decode_quad(piece.y));
}
