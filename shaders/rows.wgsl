// How the lanes of a team hold rows of k and v: a lane has every TEAM-th piece of a row in SLOTS slots,
// for ROWS rows of keys that follow each other.

import constants::{HALF_PIECES, HALF_SLOTS, LOOKUPS, OWN_ROWS, PIECES, ROWS, SLOTS, TEAM};
import package::address::{Slot, k_row, page_of, place_of, slot_of, v_row};
import package::params::Work;
import package::k_pieces;
import package::v_pieces;
@if(token_scales) import package::token_scales::scales_at;

@group(0) @binding(3) var<storage, read> k: array<k_pieces::Piece>;
@group(0) @binding(4) var<storage, read> v: array<v_pieces::Piece>;

// The piece of a row that a lane holds in a slot, and whether there is one. With rotary encoding, the
// lane that holds a piece also holds the one half a row further.
@if(!rope) fn piece_at(slot: u32, lane: u32) -> u32 {
  return slot * TEAM + lane;
}
@if(!rope) fn has_piece(slot: u32, lane: u32) -> bool {
  return slot * TEAM + lane < PIECES;
}
@if(rope) fn piece_at(slot: u32, lane: u32) -> u32 {
  return (slot / HALF_SLOTS) * HALF_PIECES + (slot % HALF_SLOTS) * TEAM + lane;
}
@if(rope) fn has_piece(slot: u32, lane: u32) -> bool {
  return (slot % HALF_SLOTS) * TEAM + lane < HALF_PIECES;
}

// Where there is no piece, a lane reads the row's first.
fn piece_index(slot: u32, lane: u32) -> u32 {
  return select(0u, piece_at(slot, lane), has_piece(slot, lane));
}

// The pages of a team's rows from position `first` on: where no page ends among them, one for all
// (LOOKUPS is 1), else one each.
fn pages_of(work: Work, first: u32) -> array<u32, LOOKUPS> {
  var pages: array<u32, LOOKUPS>;
  @unroll for (var n = 0u; n < LOOKUPS; n++) {
    pages[n] = page_of(work, first + n);
  }
  return pages;
}

@if(one_lookup) fn slot_at(pages: array<u32, LOOKUPS>, first: u32, r: u32) -> Slot {
  return Slot(pages[0], place_of(first) + r);
}
@else fn slot_at(pages: array<u32, LOOKUPS>, first: u32, r: u32) -> Slot {
  return Slot(pages[r], place_of(first + r));
}

fn value_row(pages: array<u32, LOOKUPS>, kv_head: u32, first: u32, r: u32) -> u32 {
  return v_row(slot_at(pages, first, r), kv_head);
}

// The pieces of a team's rows, from position `first` on. Rows past the end may be read, as WebGPU
// allows (what lies there, or anything within the binding), and are silenced by their users.
fn load_keys(
  pages: array<u32, LOOKUPS>, kv_head: u32, first: u32, lane: u32,
) -> array<k_pieces::Piece, ROWS * SLOTS> {
  var pieces: array<k_pieces::Piece, ROWS * SLOTS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    let row = k_row(slot_at(pages, first, r), kv_head);
    @unroll for (var s = 0u; s < SLOTS; s++) {
      pieces[r * SLOTS + s] = k[row + piece_index(s, lane)];
    }
  }
  return pieces;
}

fn load_values(
  pages: array<u32, LOOKUPS>, kv_head: u32, first: u32, lane: u32,
) -> array<v_pieces::Piece, ROWS * SLOTS> {
  var pieces: array<v_pieces::Piece, ROWS * SLOTS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    let row = value_row(pages, kv_head, first, r);
    @unroll for (var s = 0u; s < SLOTS; s++) {
      pieces[r * SLOTS + s] = v[row + piece_index(s, lane)];
    }
  }
  return pieces;
}

// The scales of OWN_ROWS of a team's rows, from its row r on: a lane's own, of which r is not constant.
@if(token_scales) fn load_scales(
  work: Work, pages: array<u32, LOOKUPS>, kv_head: u32, first: u32, r: u32,
) -> array<vec2<f32>, OWN_ROWS> {
  var scales: array<vec2<f32>, OWN_ROWS>;
  @unroll for (var j = 0u; j < OWN_ROWS; j++) {
    @if(one_lookup) let slot = Slot(pages[0], place_of(first) + r + j);
    @if(!one_lookup) let slot = slot_of(work, first + r + j);
    scales[j] = scales_at(slot, kv_head);
  }
  return scales;
}

// Those of absent rows may be anything.
@if(token_scales) fn present_scales(
  scales: array<vec2<f32>, OWN_ROWS>, first: u32, end: u32,
) -> array<vec2<f32>, OWN_ROWS> {
  var kept: array<vec2<f32>, OWN_ROWS>;
  @unroll for (var j = 0u; j < OWN_ROWS; j++) {
    kept[j] = select(vec2<f32>(0.0), scales[j], first + j < end);
  }
  return kept;
}

// Pieces with those of absent rows cleared: a weight of 0 does not silence an infinity or a NaN.
fn present_keys(
  pieces: array<k_pieces::Piece, ROWS * SLOTS>, first: u32, end: u32,
) -> array<k_pieces::Piece, ROWS * SLOTS> {
  var kept: array<k_pieces::Piece, ROWS * SLOTS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    @unroll for (var s = 0u; s < SLOTS; s++) {
      kept[r * SLOTS + s] = select(k_pieces::Piece(), pieces[r * SLOTS + s], first + r < end);
    }
  }
  return kept;
}
fn present_values(
  pieces: array<v_pieces::Piece, ROWS * SLOTS>, first: u32, end: u32,
) -> array<v_pieces::Piece, ROWS * SLOTS> {
  var kept: array<v_pieces::Piece, ROWS * SLOTS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    @unroll for (var s = 0u; s < SLOTS; s++) {
      kept[r * SLOTS + s] = select(v_pieces::Piece(), pieces[r * SLOTS + s], first + r < end);
    }
  }
  return kept;
}

// A lane without a piece in a slot has a query of 0 there, which does not silence an infinity.
@if(padded) fn kept(piece: k_pieces::Piece, slot: u32, lane: u32) -> k_pieces::Piece {
  return select(k_pieces::Piece(), piece, has_piece(slot, lane));
}
@else fn kept(piece: k_pieces::Piece, slot: u32, lane: u32) -> k_pieces::Piece {
  return piece;
}
