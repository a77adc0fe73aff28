// How the lanes of a team hold rows of k and v: a lane has every TEAM-th piece of a row in SLOTS slots,
// for ROWS rows that lie TEAMS tokens apart.

import constants::{HALF_PIECES, HALF_SLOTS, PIECES, ROWS, SLOTS, TEAM, TEAMS};
import package::address::{k_row, slot_of, v_row};
import package::params::Work;
import package::pieces::Piece;

@group(0) @binding(3) var<storage, read> k: array<Piece>;
@group(0) @binding(4) var<storage, read> v: array<Piece>;

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

// The pieces of a team's rows, from position `first` on. Rows past the end may be read, as WebGPU
// allows (what lies there, or anything within the binding), and are silenced by their users.
fn load_keys(work: Work, kv_head: u32, first: u32, lane: u32) -> array<Piece, ROWS * SLOTS> {
  var pieces: array<Piece, ROWS * SLOTS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    let row = k_row(slot_of(work, first + r * TEAMS), kv_head);
    @unroll for (var s = 0u; s < SLOTS; s++) {
      pieces[r * SLOTS + s] = k[row + piece_index(s, lane)];
    }
  }
  return pieces;
}

fn load_values(work: Work, kv_head: u32, first: u32, lane: u32) -> array<Piece, ROWS * SLOTS> {
  var pieces: array<Piece, ROWS * SLOTS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    let row = v_row(slot_of(work, first + r * TEAMS), kv_head);
    @unroll for (var s = 0u; s < SLOTS; s++) {
      pieces[r * SLOTS + s] = v[row + piece_index(s, lane)];
    }
  }
  return pieces;
}

// Pieces with those of absent rows cleared: a weight of 0 does not silence an infinity or a NaN.
fn present(
  pieces: array<Piece, ROWS * SLOTS>, first: u32, end: u32,
) -> array<Piece, ROWS * SLOTS> {
  var kept: array<Piece, ROWS * SLOTS>;
  @unroll for (var r = 0u; r < ROWS; r++) {
    @unroll for (var s = 0u; s < SLOTS; s++) {
      kept[r * SLOTS + s] = select(Piece(), pieces[r * SLOTS + s], first + r * TEAMS < end);
    }
  }
  return kept;
}

// A lane without a piece in a slot has a query of 0 there, which does not silence an infinity.
@if(padded) fn kept(piece: Piece, slot: u32, lane: u32) -> Piece {
  return select(Piece(), piece, has_piece(slot, lane));
}
@else fn kept(piece: Piece, slot: u32, lane: u32) -> Piece {
  return piece;
}
