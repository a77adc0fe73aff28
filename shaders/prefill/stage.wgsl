// How tiles of q, k and v reach workgroup memory, as float32: loaded to registers first, a stage ahead
// of their use, and decoded once for all rows.
//
// A stage of q and k is CHUNK_QUADS quads of every row of the tile; one of v is 4 · STAGE_QUADS whole
// rows. With rotary encoding, the first half of a chunk's quads are of the row's lower half, the other
// are those they turn with.

import constants::{
  CHUNK_QUADS, HALF_QUADS, KEY_LANES, LANE_KEYS, LANE_ROWS, PIECE_QUADS, Q_LOADS, QK_QUADS, ROW_LANES,
  STAGE_QUADS, TILE_KEYS, TILE_ROWS, K_LOADS, V_LOADS, V_QUADS, VALUE_QUADS, WORKGROUP,
};
import package::address::{k_row, slot_of, v_row};
import package::kv_format;
import package::params::{Work, params};
import package::pieces::{Piece, decode_piece, mark_word, nan_mark, nan_marks};
import package::q_format;
import package::rope::{Turn, turn_of, turned_lower, turned_upper};

@group(0) @binding(2) var<storage, read> q: array<q_format::Quad>;
@group(0) @binding(3) var<storage, read> k: array<Piece>;
@group(0) @binding(4) var<storage, read> v: array<Piece>;

// Quad of the chunk, then the lane's row or key (or key and quad), then the lane: neighbours lie side
// by side, and what a lane reads at once lies at constant distances.
var<workgroup> q_tile: array<array<array<vec4<f32>, ROW_LANES>, LANE_ROWS>, CHUNK_QUADS>;
var<workgroup> k_tile: array<array<array<vec4<f32>, KEY_LANES>, LANE_KEYS>, CHUNK_QUADS>;
var<workgroup> v_tile: array<array<array<vec4<f32>, KEY_LANES>, 4 * VALUE_QUADS>, STAGE_QUADS>;
// The last stage of v with a number that is not finite, counted from 1.
var<workgroup> odd_stage: atomic<u32>;

// The key of a lane's place in a tile: four keys side by side, then KEY_LANES · 4 further.
fn key_of(place: u32, key_lane: u32) -> u32 {
  return (place / 4u) * (4u * KEY_LANES) + 4u * key_lane + place % 4u;
}

// The row's quad at a chunk's quad, and whether the row has it.
@if(!rope) fn quad_at(chunk: u32, quad: u32) -> u32 {
  return chunk * CHUNK_QUADS + quad;
}
@if(!rope) fn has_quad(chunk: u32, quad: u32) -> bool {
  return chunk * CHUNK_QUADS + quad < QK_QUADS;
}
@if(rope) fn quad_at(chunk: u32, quad: u32) -> u32 {
  return (quad / (CHUNK_QUADS / 2u)) * HALF_QUADS + chunk * (CHUNK_QUADS / 2u) + quad % (CHUNK_QUADS / 2u);
}
@if(rope) fn has_quad(chunk: u32, quad: u32) -> bool {
  return chunk * (CHUNK_QUADS / 2u) + quad % (CHUNK_QUADS / 2u) < HALF_QUADS;
}

// A lane loads, in turn n, one quad (or, with rotary encoding, every other turn the one it turns with)
// of always the same row of q, whose first quad is `row`.
fn q_place(n: u32, local: u32) -> u32 {
  @if(rope) return (local + (n / 2u) * WORKGROUP) / TILE_ROWS + (n % 2u) * (CHUNK_QUADS / 2u);
  @else return (local + n * WORKGROUP) / TILE_ROWS;
}
fn has_q_place(n: u32, local: u32) -> bool {
  @if(rope) return (local + (n / 2u) * WORKGROUP) / TILE_ROWS < CHUNK_QUADS / 2u;
  @else return (local + n * WORKGROUP) / TILE_ROWS < CHUNK_QUADS;
}

fn load_queries(row: u32, chunk: u32, local: u32) -> array<q_format::Quad, Q_LOADS> {
  var quads: array<q_format::Quad, Q_LOADS>;
  @unroll for (var n = 0u; n < Q_LOADS; n++) {
    let place = q_place(n, local);
    if (has_q_place(n, local) && has_quad(chunk, place)) {
      quads[n] = q[row + quad_at(chunk, place)];
    }
  }
  return quads;
}

fn store_queries(quads: array<q_format::Quad, Q_LOADS>, chunk: u32, local: u32, position: u32) {
  let row = local % TILE_ROWS;
  @if(!rope) {
    @unroll for (var n = 0u; n < Q_LOADS; n++) {
      if (has_q_place(n, local)) {
        q_tile[q_place(n, local)][row / ROW_LANES][row % ROW_LANES] =
          q_format::decode_quad(quads[n]) * (q_format::UNIT * kv_format::UNIT);
      }
    }
  }
  @if(rope) {
    @unroll for (var n = 0u; n < Q_LOADS; n += 2u) {
      if (has_q_place(n, local)) {
        let place = q_place(n, local);
        let turn = turn_of(position, min(quad_at(chunk, place), HALF_QUADS - 1u));
        let lower = q_format::decode_quad(quads[n]) * (q_format::UNIT * kv_format::UNIT);
        let upper = q_format::decode_quad(quads[n + 1]) * (q_format::UNIT * kv_format::UNIT);
        q_tile[place][row / ROW_LANES][row % ROW_LANES] = turned_lower(lower, upper, turn);
        q_tile[place + CHUNK_QUADS / 2u][row / ROW_LANES][row % ROW_LANES] =
          turned_upper(lower, upper, turn);
      }
    }
  }
}

// The place among a tile's keys, and the chunk's quad, of a lane's turn n.
fn k_slot(n: u32, local: u32) -> u32 {
  @if(rope) return (local + (n / 2u) * WORKGROUP) % TILE_KEYS;
  @else return (local + n * WORKGROUP) % TILE_KEYS;
}
fn k_place(n: u32, local: u32) -> u32 {
  @if(rope) return ((local + (n / 2u) * WORKGROUP) / TILE_KEYS) * PIECE_QUADS + (n % 2u) * (CHUNK_QUADS / 2u);
  @else return ((local + n * WORKGROUP) / TILE_KEYS) * PIECE_QUADS;
}
fn has_k_place(n: u32, local: u32) -> bool {
  @if(rope) return ((local + (n / 2u) * WORKGROUP) / TILE_KEYS) * PIECE_QUADS < CHUNK_QUADS / 2u;
  @else return ((local + n * WORKGROUP) / TILE_KEYS) * PIECE_QUADS < CHUNK_QUADS;
}

// What lies beyond the end is not looked at; the last key's row stands there.
fn load_keys(
  work: Work, kv_head: u32, first: u32, chunk: u32, local: u32,
) -> array<Piece, K_LOADS> {
  var pieces: array<Piece, K_LOADS>;
  @unroll for (var n = 0u; n < K_LOADS; n++) {
    let slot = k_slot(n, local);
    let place = k_place(n, local);
    if (has_k_place(n, local) && has_quad(chunk, place)) {
      let key = min(first + key_of(slot / KEY_LANES, slot % KEY_LANES), work.end_key - 1u);
      pieces[n] = k[k_row(slot_of(work, key), kv_head) + quad_at(chunk, place) / PIECE_QUADS];
    }
  }
  return pieces;
}

fn store_keys(
  pieces: array<Piece, K_LOADS>, work: Work, first: u32, chunk: u32, local: u32,
) {
  @if(!rope) {
    @unroll for (var n = 0u; n < K_LOADS; n++) {
      if (has_k_place(n, local)) {
        let slot = k_slot(n, local);
        let quads = exact_quads(pieces[n]);
        @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
          k_tile[k_place(n, local) + u][slot / KEY_LANES][slot % KEY_LANES] = quads[u];
        }
      }
    }
  }
  @if(rope) {
    @unroll for (var n = 0u; n < K_LOADS; n += 2u) {
      if (has_k_place(n, local)) {
        let slot = k_slot(n, local);
        let place = k_place(n, local);
        let position = min(first + key_of(slot / KEY_LANES, slot % KEY_LANES), work.end_key - 1u);
        let lower = exact_quads(pieces[n]);
        let upper = exact_quads(pieces[n + 1]);
        @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
          let turn = turn_of(position, min(quad_at(chunk, place + u), HALF_QUADS - 1u));
          k_tile[place + u][slot / KEY_LANES][slot % KEY_LANES] =
            turned_lower(lower[u], upper[u], turn);
          k_tile[place + u + CHUNK_QUADS / 2u][slot / KEY_LANES][slot % KEY_LANES] =
            turned_upper(lower[u], upper[u], turn);
        }
      }
    }
  }
}

// A lane's turn n: which key of the stage, and which quad of its row.
fn v_key(n: u32, local: u32) -> u32 {
  return (local + n * WORKGROUP) / (KEY_LANES * VALUE_QUADS / PIECE_QUADS);
}
fn v_quad(n: u32, local: u32) -> u32 {
  return ((local + n * WORKGROUP) % (KEY_LANES * VALUE_QUADS / PIECE_QUADS)) * PIECE_QUADS;
}

fn load_values(work: Work, kv_head: u32, first: u32, local: u32) -> array<Piece, V_LOADS> {
  var pieces: array<Piece, V_LOADS>;
  @unroll for (var n = 0u; n < V_LOADS; n++) {
    let key = first + v_key(n, local);
    let quad = v_quad(n, local);
    // A weight of 0 does not silence what lies beyond the end.
    if (v_key(n, local) < 4u * STAGE_QUADS && quad < V_QUADS && key < work.end_key) {
      pieces[n] = v[v_row(slot_of(work, key), kv_head) + quad / PIECE_QUADS];
    }
  }
  return pieces;
}

// `number` counts the stages of v; `looks` says whether numbers that are not finite matter.
fn store_values(pieces: array<Piece, V_LOADS>, local: u32, number: u32, looks: bool) {
  @unroll for (var n = 0u; n < V_LOADS; n++) {
    let key = v_key(n, local);
    if (key < 4u * STAGE_QUADS) {
      let quad = v_quad(n, local);
      let quads = exact_quads(pieces[n]);
      @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
        v_tile[key / 4u][(key % 4u) * VALUE_QUADS + (quad + u) / KEY_LANES][(quad + u) % KEY_LANES] =
          quads[u];
        if (looks && any((bitcast<vec4<u32>>(quads[u]) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u))) {
          atomicMax(&odd_stage, number);
        }
      }
    }
  }
}

@if(!nan_marks) fn exact_quads(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  return decode_piece(piece);
}
// The quick way of decoding takes NaN codes for numbers; they are rare.
@if(nan_marks) fn exact_quads(piece: Piece) -> array<vec4<f32>, PIECE_QUADS> {
  var quads = decode_piece(piece);
  if ((nan_mark(piece) & 0x80808080u) != 0u) {
    let marks = nan_marks(piece);
    @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
      let found = vec4<u32>(mark_word(marks, u)) & vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u);
      quads[u] = select(quads[u], vec4<f32>(bitcast<f32>(params.nan_bits)), found != vec4<u32>(0u));
    }
  }
  return quads;
}
