// Appends rows of k and v to a paged FP8 cache, each with a scale of its own, which is stored beside it.
//
// Grid: one workgroup for TEAMS rows with work, folded over x and y.
// Bindings: 0 params; 1 slots; 2 unused; 3 appended keys; 4 appended values; 5 the cache of k; 6 that of
//   v; 7 scales; 8 turns.
//
//   m = max |row|,   cache[...] = round(row · L / m),   scales[...] = m / L     (append/row_scale.wgsl)
//
// A team of TEAM lanes holds a row, every TEAM-th piece of it in a lane, and reads it once: the lanes meet
// for the maximum, which is of the turned row where keys are turned. Work counts rows: first all keys,
// heads first, then all values. With rotary encoding, a lane that holds a piece of a key also holds the one
// half a row further.

import constants::{
  KEY_LANES, KEY_SLOTS, PIECE_QUADS, SLOTS, TEAM, TEAMS, VALUE_PIECES, VALUE_SLOTS, WORKGROUP,
};
import package::convert::{encode_piece, scaled};
import package::params::params;
import package::pieces::decode_piece;
import package::append::row_scale::{RowScale, largest_magnitude, row_scale};
import package::append::rows::{
  Row, cache_key, cache_value, k, keys, row_of, source_key, source_value, store_value, values,
};
@if(rope) import package::rope::{turn_of, turned_lower, turned_upper};

@group(0) @binding(7) var<storage, read_write> scales: array<f32>;

var<workgroup> largest: array<atomic<u32>, TEAMS>;

alias Quads = array<vec4<f32>, PIECE_QUADS>;
// A lane's pieces of a row; a slot beyond the row's end holds zeros.
alias Pieces = array<Quads, SLOTS>;

@if(!rope) fn load_key(row: Row, lane: u32) -> Pieces {
  var pieces: Pieces;
  @unroll for (var s = 0u; s < KEY_SLOTS; s++) {
    if (s * TEAM + lane < KEY_LANES) {
      pieces[s] = decode_piece(keys[source_key(row) + s * TEAM + lane]);
    }
  }
  return pieces;
}

// Slots come in pairs: a piece of the lower half, and the one that it turns with.
@if(rope) fn load_key(row: Row, lane: u32) -> Pieces {
  var pieces: Pieces;
  @unroll for (var s = 0u; s < KEY_SLOTS; s += 2u) {
    let piece = (s / 2u) * TEAM + lane;
    if (piece < KEY_LANES) {
      let lower = decode_piece(keys[source_key(row) + piece]);
      let upper = decode_piece(keys[source_key(row) + piece + KEY_LANES]);
      @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
        let turn = turn_of(row.slot.position, piece * PIECE_QUADS + i);
        pieces[s][i] = turned_lower(lower[i], upper[i], turn);
        pieces[s + 1u][i] = turned_upper(lower[i], upper[i], turn);
      }
    }
  }
  return pieces;
}

fn load_value(row: Row, lane: u32) -> Pieces {
  var pieces: Pieces;
  @unroll for (var s = 0u; s < VALUE_SLOTS; s++) {
    if (s * TEAM + lane < VALUE_PIECES) {
      pieces[s] = decode_piece(values[source_value(row) + s * TEAM + lane]);
    }
  }
  return pieces;
}

@if(!rope) fn store_key(row: Row, lane: u32, pieces: Pieces, factor: f32) {
  @unroll for (var s = 0u; s < KEY_SLOTS; s++) {
    if (s * TEAM + lane < KEY_LANES) {
      k[cache_key(row) + s * TEAM + lane] = encode_piece(scaled(pieces[s], factor));
    }
  }
}

@if(rope) fn store_key(row: Row, lane: u32, pieces: Pieces, factor: f32) {
  @unroll for (var s = 0u; s < KEY_SLOTS; s += 2u) {
    let piece = (s / 2u) * TEAM + lane;
    if (piece < KEY_LANES) {
      k[cache_key(row) + piece] = encode_piece(scaled(pieces[s], factor));
      k[cache_key(row) + piece + KEY_LANES] = encode_piece(scaled(pieces[s + 1u], factor));
    }
  }
}

fn store_values(row: Row, lane: u32, pieces: Pieces, factor: f32) {
  @unroll for (var s = 0u; s < VALUE_SLOTS; s++) {
    if (s * TEAM + lane < VALUE_PIECES) {
      store_value(cache_value(row) + s * TEAM + lane, encode_piece(scaled(pieces[s], factor)));
    }
  }
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let team = local / TEAM;
  let lane = local % TEAM;
  let index = (workgroup.y * grid.x + workgroup.x) * TEAMS + team;
  let has_row = index < params.num_work;
  let is_key = index < params.key_work;
  // Teams without a row take the first, and store nothing.
  let row = row_of(select(0u, select(index - params.key_work, index, is_key), has_row));

  var pieces: Pieces;
  if (is_key) {
    pieces = load_key(row, lane);
  } else {
    pieces = load_value(row, lane);
  }
  var magnitude = 0u;
  @unroll for (var s = 0u; s < SLOTS; s++) {
    @unroll for (var i = 0u; i < PIECE_QUADS; i++) {
      magnitude = max(magnitude, largest_magnitude(pieces[s][i]));
    }
  }
  atomicMax(&largest[team], magnitude);
  workgroupBarrier();
  let own = row_scale(atomicLoad(&largest[team]));
  if (!has_row) {
    return;
  }
  if (is_key) {
    store_key(row, lane, pieces, own.factor);
  } else {
    store_values(row, lane, pieces, own.factor);
  }
  if (lane == 0u) {
    let pair = params.scales_base + row.slot.page * params.scales_page +
      row.head * params.scales_head + row.slot.place;
    scales[2u * pair + select(1u, 0u, is_key)] = own.scale;
  }
}
