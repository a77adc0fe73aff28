// A piece is what a lane loads of a row at once, 16 bytes or less: PIECE_QUADS quads (of 4 elements),
// which the row's format decodes. Attention links this twice, for k and for v, each with conditions and
// a format of its own (src/webgpu/piece_parts.ts).

import constants::PIECE_QUADS;
import package::piece_format::decode_quad;

@if(piece_4) alias Piece = vec4<u32>;
@if(piece_2) alias Piece = vec2<u32>;
@if(piece_1) alias Piece = u32;

@if(quad_1 && piece_1) fn decode_piece(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  return array<vec4<f32>, PIECE_QUADS>(decode_quad(piece));
}

@if(quad_1 && !piece_1) fn decode_piece(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  var quads: array<vec4<f32>, PIECE_QUADS>;
  @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
    quads[i] = decode_quad(piece[i]);
  }
  return quads;
}

@if(quad_2) fn decode_piece(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  var quads: array<vec4<f32>, PIECE_QUADS>;
  @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
    quads[i] = decode_quad(vec2<u32>(piece[2u * i], piece[2u * i + 1u]));
  }
  return quads;
}

@if(quad_4) fn decode_piece(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  return array<vec4<f32>, PIECE_QUADS>(decode_quad(piece));
}

// For formats whose quick way decodes NaN codes as numbers: bit 7 of a byte is set for a NaN code,
// the other bits mean nothing. Marks of several pieces may be combined by |.
@if(nan_marks) fn marks_of(piece: Piece) -> Piece {
  return (piece & Piece(0x7f7f7f7fu)) + Piece(0x01010101u);
}

// Whether a piece has any, cheaper: bit 7 of some byte is set. Adding 1 to a byte turns its bit 7 over
// if the code is NaN (and carries into the next byte only then).
@if(nan_marks) fn turned(word: u32) -> u32 {
  return (word + 0x01010101u) ^ word;
}
@if(nan_marks && piece_1) fn nan_mark(piece: Piece) -> u32 {
  return turned(piece);
}
@if(nan_marks && piece_2) fn nan_mark(piece: Piece) -> u32 {
  return turned(piece.x) | turned(piece.y);
}
// Of four words a driver made slower code of that (bench/notes/decode.md).
@if(nan_marks && piece_4) fn nan_mark(piece: Piece) -> u32 {
  let marks = marks_of(piece);
  return marks.x | marks.y | marks.z | marks.w;
}

// The marks of one quad.
@if(nan_marks && piece_1) fn mark_word(marks: Piece, quad: u32) -> u32 {
  return marks;
}
@if(nan_marks && !piece_1) fn mark_word(marks: Piece, quad: u32) -> u32 {
  return marks[quad];
}

// What attention multiplies: NaN codes are rare, and put back on a way of their own.
@if(!nan_marks) fn exact_piece(piece: Piece, nan_bits: u32) -> array<vec4<f32>, PIECE_QUADS> {
  return decode_piece(piece);
}
@if(nan_marks) fn exact_piece(piece: Piece, nan_bits: u32) -> array<vec4<f32>, PIECE_QUADS> {
  var quads = decode_piece(piece);
  if ((nan_mark(piece) & 0x80808080u) != 0u) {
    let marks = marks_of(piece);
    @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
      let found = vec4<u32>(mark_word(marks, u)) & vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u);
      quads[u] = select(quads[u], vec4<f32>(bitcast<f32>(nan_bits)), found != vec4<u32>(0u));
    }
  }
  return quads;
}
