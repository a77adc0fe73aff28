// Pieces of one dtype become pieces of another: PIECE_QUADS quads (of 4 elements) each, of which the
// larger is at most 16 bytes.
//
//   result = round(value · factor)

import constants::PIECE_QUADS;
@if(packs) import package::formats::f16_pack;
import package::out_format::encode_quad;
import package::pieces::{Piece, decode_piece};
@if(nan_marks) import package::piece_format::UNIT;
@if(nan_marks) import package::pieces::{mark_word, marks_of, nan_mark};

@if(out_4) alias OutPiece = vec4<u32>;
@if(out_2) alias OutPiece = vec2<u32>;
@if(out_1) alias OutPiece = u32;

@if(out_quad_4 || (out_quad_2 && out_2) || (out_quad_1 && out_1))
fn encode_piece(quads: array<vec4<f32>, PIECE_QUADS>) -> OutPiece {
  return encode_quad(quads[0]);
}

@if((out_quad_2 && out_4) || (out_quad_1 && out_2))
fn encode_piece(quads: array<vec4<f32>, PIECE_QUADS>) -> OutPiece {
  return OutPiece(encode_quad(quads[0]), encode_quad(quads[1]));
}

@if(out_quad_1 && out_4)
fn encode_piece(quads: array<vec4<f32>, PIECE_QUADS>) -> OutPiece {
  return OutPiece(
    encode_quad(quads[0]), encode_quad(quads[1]), encode_quad(quads[2]), encode_quad(quads[3]),
  );
}

// One dtype to itself: NaN and subnormals too keep their bits.
@if(copies) fn converted(piece: Piece, factor: f32) -> OutPiece {
  return piece;
}

@if(!copies && !packs) fn converted(piece: Piece, factor: f32) -> OutPiece {
  return encode_piece(scaled(values_of(piece), factor));
}

// Values that are halves already; NaN goes the other way.
@if(packs) fn converted(piece: Piece, factor: f32) -> OutPiece {
  if ((nan_mark(piece) & 0x80808080u) != 0u) {
    return encode_piece(values_of(piece));
  }
  return pack_piece(decode_piece(piece));
}
@if(packs && out_2) fn pack_piece(quads: array<vec4<f32>, PIECE_QUADS>) -> OutPiece {
  return f16_pack::encode_quad(quads[0] * UNIT);
}
@if(packs && out_4) fn pack_piece(quads: array<vec4<f32>, PIECE_QUADS>) -> OutPiece {
  return OutPiece(f16_pack::encode_quad(quads[0] * UNIT), f16_pack::encode_quad(quads[1] * UNIT));
}

@if(!nan_marks) fn values_of(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  return decode_piece(piece);
}

// The format's quick way has another unit, and decodes NaN codes as numbers; they are rare.
@if(nan_marks) fn values_of(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  var quads = decode_piece(piece);
  @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
    quads[i] *= UNIT;
  }
  if ((nan_mark(piece) & 0x80808080u) != 0u) {
    let marks = marks_of(piece);
    @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
      let is_nan = (vec4<u32>(mark_word(marks, i)) &
        vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u)) != vec4<u32>(0u);
      quads[i] = bitcast<vec4<f32>>(select(bitcast<vec4<u32>>(quads[i]), vec4<u32>(0x7fc00000u), is_nan));
    }
  }
  return quads;
}

@if(scaled) fn scaled(
  quads: array<vec4<f32>, PIECE_QUADS>, factor: f32,
) -> array<vec4<f32>, PIECE_QUADS> {
  var result: array<vec4<f32>, PIECE_QUADS>;
  @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
    result[i] = quads[i] * factor;
  }
  return result;
}

// Without a factor nothing is multiplied: even by 1, a GPU may lose a subnormal.
@if(!scaled) fn scaled(
  quads: array<vec4<f32>, PIECE_QUADS>, factor: f32,
) -> array<vec4<f32>, PIECE_QUADS> {
  return quads;
}
