// Appends rows of k and v to a paged cache, in its dtype (FlashInfer's append_paged_kv_cache).
//
// Grid: one workgroup for WORKGROUP lanes with work, folded over x and y.
// Bindings: 0 params; 1 slots; 2 factors, of each head of k, then of v; 3 appended keys; 4 appended
//   values; 5 the cache of k; 6 that of v; 7 unused; 8 turns.
//
//   cache[page · page_stride + place · token_stride + head · head_stride] = round(row · factor)
//
// A lane moves one piece of a row: all pieces of a row first, then all heads, then all tokens; first
// the keys, then the values. With rotary encoding, the lane of a key's piece also moves the one half a
// row further, which turns with it. No word of the cache holds parts of two rows, so lanes never meet.

import constants::{KEY_LANES, KEY_PIECES, PIECE_QUADS, VALUE_PIECES, WORKGROUP};
import package::convert::{OutPiece, converted, encode_piece, scaled};
import package::params::{Slot, params, slot_at};
import package::pieces::{Piece, decode_piece};
@if(rope) import package::rope::{turn_of, turned_lower, turned_upper};

@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read> keys: array<Piece>;
@group(0) @binding(4) var<storage, read> values: array<Piece>;
@group(0) @binding(5) var<storage, read_write> k: array<OutPiece>;
// One tensor may hold both: a buffer cannot be bound twice for writing.
@if(!joined) @group(0) @binding(6) var<storage, read_write> v: array<OutPiece>;

// A lane's place in a tensor of rows, each of so many lanes.
struct Place {
  slot: Slot,
  head: u32,
  lane: u32,
}

fn place_of(index: u32, lanes: u32) -> Place {
  let row = index / lanes;
  return Place(slot_at(row / params.num_heads), row % params.num_heads, index % lanes);
}

// Where a row of the appended tensors begins.
fn source_of(place: Place, pieces: u32) -> u32 {
  return (place.slot.row * params.num_heads + place.head) * pieces;
}

fn append_key(index: u32) {
  let place = place_of(index, KEY_LANES);
  let at = params.k_base + place.slot.page * params.k_page + place.slot.place * params.k_token +
    place.head * params.k_head + place.lane;
  let source = source_of(place, KEY_PIECES) + place.lane;
  @if(scaled) let factor = factors[place.head];
  @if(!scaled) let factor = 1.0;
  @if(!rope) {
    k[at] = converted(keys[source], factor);
  }
  @if(rope) {
    let lower = decode_piece(keys[source]);
    let upper = decode_piece(keys[source + KEY_LANES]);
    var new_lower = lower;
    var new_upper = upper;
    @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
      let turn = turn_of(place.slot.position, place.lane * PIECE_QUADS + i);
      new_lower[i] = turned_lower(lower[i], upper[i], turn);
      new_upper[i] = turned_upper(lower[i], upper[i], turn);
    }
    k[at] = encode_piece(scaled(new_lower, factor));
    k[at + KEY_LANES] = encode_piece(scaled(new_upper, factor));
  }
}

fn append_value(index: u32) {
  let place = place_of(index, VALUE_PIECES);
  let at = params.v_base + place.slot.page * params.v_page + place.slot.place * params.v_token +
    place.head * params.v_head + place.lane;
  @if(scaled) let factor = factors[params.num_heads + place.head];
  @if(!scaled) let factor = 1.0;
  let piece = converted(values[source_of(place, VALUE_PIECES) + place.lane], factor);
  @if(joined) {
    k[at] = piece;
  }
  @if(!joined) {
    v[at] = piece;
  }
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let index = (workgroup.y * grid.x + workgroup.x) * WORKGROUP + local;
  if (index >= params.num_work) {
    return;
  }
  if (index < params.key_work) {
    append_key(index);
  } else {
    append_value(index - params.key_work);
  }
}
