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
// Rows with scales of their own are for append_scaled.wgsl.

import constants::{KEY_LANES, PIECE_QUADS, VALUE_PIECES, WORKGROUP};
import package::convert::{converted, encode_piece, scaled};
import package::params::params;
import package::pieces::decode_piece;
import package::append::rows::{
  cache_key, cache_value, k, keys, row_of, source_key, source_value, store_value, values,
};
@if(rope) import package::rope::{turn_of, turned_lower, turned_upper};

@group(0) @binding(2) var<storage, read> factors: array<f32>;

fn append_key(index: u32) {
  let row = row_of(index / KEY_LANES);
  let lane = index % KEY_LANES;
  let at = cache_key(row) + lane;
  let source = source_key(row) + lane;
  @if(scaled) let factor = factors[row.head];
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
      let turn = turn_of(row.slot.position, lane * PIECE_QUADS + i);
      new_lower[i] = turned_lower(lower[i], upper[i], turn);
      new_upper[i] = turned_upper(lower[i], upper[i], turn);
    }
    k[at] = encode_piece(scaled(new_lower, factor));
    k[at + KEY_LANES] = encode_piece(scaled(new_upper, factor));
  }
}

fn append_value(index: u32) {
  let row = row_of(index / VALUE_PIECES);
  let lane = index % VALUE_PIECES;
  @if(scaled) let factor = factors[params.num_heads + row.head];
  @if(!scaled) let factor = 1.0;
  store_value(cache_value(row) + lane, converted(values[source_value(row) + lane], factor));
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
