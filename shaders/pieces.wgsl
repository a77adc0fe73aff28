// A piece is what a lane loads of a cache row at once, 16 bytes or less: PIECE_QUADS quads (of 4
// elements), which the format of the cache decodes.

import constants::{PIECE_QUADS, PIECE_WORDS};
import package::kv_format::decode_quad;

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
@if(nan_marks) fn nan_marks(piece: Piece) -> Piece {
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
@if(nan_marks && piece_4) fn nan_mark(piece: Piece) -> u32 {
  return turned(piece.x) | turned(piece.y) | turned(piece.z) | turned(piece.w);
}

// The marks of one quad.
@if(nan_marks && piece_1) fn mark_word(marks: Piece, quad: u32) -> u32 {
  return marks;
}
@if(nan_marks && !piece_1) fn mark_word(marks: Piece, quad: u32) -> u32 {
  return marks[quad];
}
