// How stages of q, k and v reach workgroup memory, as float32: loaded to registers first, a stage ahead of
// their use, and decoded once for all rows.
//
// A stage of q and k is CHUNK_QUADS quads of every row of the tile, turned over: what a lane multiplies
// at once, four rows or four keys, is a vector (prefill/tiles.wgsl). A stage of v is 4 · STAGE_QUADS whole
// rows. With rotary encoding, the first half of a chunk's quads are of the row's lower half, the others
// those they turn with.

import constants::{
  CHUNK_QUADS, HALF_QUADS, KEY_LANES, KEY_QUADS, K_LOADS, PACKED, PIECE_QUADS, Q_LOADS, QK_QUADS,
  ROW_LANES, RUN, STAGE_QUADS, TILE_KEYS, TILE_ROWS, V_LOADS, V_QUADS, VALUE_QUADS, VALUE_RUN, WORKGROUP,
};
import package::address::{k_row, slot_of, v_row};
import package::k_format;
import package::k_pieces;
import package::params::{Work, params};
import package::prefill::tiles::{column_tile, key_of, row_tile};
import package::q_format;
import package::rope::{Turn, turn_of, turn_of_signed, turned_lower, turned_upper};
import package::v_pieces;

@group(0) @binding(2) var<storage, read> q: array<q_format::Quad>;
@group(0) @binding(3) var<storage, read> k: array<k_pieces::Piece>;
@group(0) @binding(4) var<storage, read> v: array<v_pieces::Piece>;

// The last stage of v with a number that is not finite, counted from 1.
var<workgroup> odd_stage: atomic<u32>;

// The row's quad at a chunk's quad. Where chunks are not whole, the row may not have it.
@if(!rope) fn quad_at(chunk: u32, quad: u32) -> u32 {
  return chunk * CHUNK_QUADS + quad;
}
@if(rope) fn quad_at(chunk: u32, quad: u32) -> u32 {
  let half = CHUNK_QUADS / 2u;
  return (quad / half) * HALF_QUADS + chunk * half + quad % half;
}
@if(!ragged) fn has_quad(chunk: u32, quad: u32) -> bool {
  return true;
}
@if(ragged && !rope) fn has_quad(chunk: u32, quad: u32) -> bool {
  return chunk * CHUNK_QUADS + quad < QK_QUADS;
}
@if(ragged && rope) fn has_quad(chunk: u32, quad: u32) -> bool {
  return chunk * (CHUNK_QUADS / 2u) + quad % (CHUNK_QUADS / 2u) < HALF_QUADS;
}

// In place of a row that there is not.
const NONE = 0xffffffffu;

// Lanes side by side load what lies side by side in a row. In its turn n a lane loads one quad of q, or
// with rotary encoding a pair: the second lies half a chunk further.
@if(rope) const Q_SPAN = CHUNK_QUADS / 2;
@else const Q_SPAN = CHUNK_QUADS;
@if(rope) const PAIR = 2;
@else const PAIR = 1;

const Q_TURN = WORKGROUP / Q_SPAN; // rows that all lanes load in a turn

fn q_place(local: u32) -> u32 {
  return local % Q_SPAN;
}
fn q_tile_row(n: u32, local: u32) -> u32 {
  return local / Q_SPAN + n * Q_TURN;
}

// Loads are in place, and conditional: a lane whose row is not there keeps what it has, at which nobody
// looks. Drivers then load when they are told to, and to the registers from which the next stage is
// stored (bench/notes/prefill.md).
fn load_queries(
  quads: ptr<function, array<q_format::Quad, Q_LOADS * PAIR>>,
  rows: array<u32, Q_LOADS>, chunk: u32, local: u32,
) {
  @unroll for (var n = 0u; n < Q_LOADS; n++) {
    if (rows[n] != NONE) {
      if (has_quad(chunk, q_place(local))) {
        (*quads)[n * PAIR] = q[rows[n] + quad_at(chunk, q_place(local))];
        @if(rope) {
          (*quads)[n * PAIR + 1u] = q[rows[n] + quad_at(chunk, q_place(local) + Q_SPAN)];
        }
      } else {
        (*quads)[n * PAIR] = q_format::Quad();
        @if(rope) (*quads)[n * PAIR + 1u] = q_format::Quad();
      }
    }
  }
}

// Of a tile's side in vectors of `lanes` fours: the vector of what a lane has in its turn n, having `own`
// in the first; and what has the same lane and element. Where turns fill whole vectors, both are known
// without the other, and no address is computed turn by turn.
fn vector_of(n: u32, own: u32, turn: u32, lanes: u32) -> u32 {
  if (turn == 4u * lanes) { return n; }
  return (own + n * turn) / (4u * lanes);
}
fn within_vectors(n: u32, own: u32, turn: u32, lanes: u32) -> u32 {
  if (turn % (4u * lanes) == 0u) { return own; }
  return own + n * turn;
}

fn store_query(n: u32, local: u32, quad: u32, values: vec4<f32>) {
  let vector = vector_of(n, local / Q_SPAN, Q_TURN, ROW_LANES);
  let row = within_vectors(n, local / Q_SPAN, Q_TURN, ROW_LANES);
  @unroll for (var e = 0u; e < 4; e++) {
    row_tile[quad].steps[e].rows[vector][(row / 4u) % ROW_LANES][row % 4u] = values[e];
  }
}

fn store_queries(
  quads: array<q_format::Quad, Q_LOADS * PAIR>, positions: array<i32, Q_LOADS>, chunk: u32, local: u32,
) {
  @unroll for (var n = 0u; n < Q_LOADS; n++) {
    let row = q_tile_row(n, local);
    if (row < TILE_ROWS) {
      let quad = q_place(local);
      @if(!rope) {
        store_query(n, local, quad, q_format::decode_quad(quads[n]) * (q_format::UNIT * k_format::UNIT));
      }
      @if(rope) {
        let turn = turn_of_signed(positions[n], min(quad_at(chunk, quad), HALF_QUADS - 1u));
        let lower = q_format::decode_quad(quads[2 * n]) * (q_format::UNIT * k_format::UNIT);
        let upper = q_format::decode_quad(quads[2 * n + 1]) * (q_format::UNIT * k_format::UNIT);
        store_query(n, local, quad, turned_lower(lower, upper, turn));
        store_query(n, local, quad + Q_SPAN, turned_upper(lower, upper, turn));
      }
    }
  }
}

// Pieces of k in the same way.
@if(rope) const K_SPAN = CHUNK_QUADS / 2 / PIECE_QUADS;
@else const K_SPAN = CHUNK_QUADS / PIECE_QUADS;

const K_TURN = WORKGROUP / K_SPAN;

fn k_place(local: u32) -> u32 {
  return (local % K_SPAN) * PIECE_QUADS;
}
// Which of the tile's columns a lane loads in its turn n: side by side in memory there, so that no two
// lanes store to one bank.
fn k_column(n: u32, local: u32) -> u32 {
  return local / K_SPAN + n * K_TURN;
}
fn key_of_column(column: u32) -> u32 {
  return key_of((column / (4u * KEY_LANES)) * 4u + column % 4u, (column / 4u) % KEY_LANES);
}

// The rows of k that a lane loads for the tile at `first`. What lies beyond the end is not looked at.
fn key_rows(work: Work, kv_head: u32, first: u32, local: u32) -> array<u32, K_LOADS> {
  var rows: array<u32, K_LOADS>;
  @unroll for (var n = 0u; n < K_LOADS; n++) {
    let key = first + key_of_column(k_column(n, local));
    rows[n] = select(NONE, k_row(slot_of(work, key), kv_head), key < work.end_key);
  }
  return rows;
}

fn load_keys(
  pieces: ptr<function, array<k_pieces::Piece, K_LOADS * PAIR>>,
  rows: array<u32, K_LOADS>, chunk: u32, local: u32,
) {
  @unroll for (var n = 0u; n < K_LOADS; n++) {
    if (rows[n] != NONE) {
      if (has_quad(chunk, k_place(local))) {
        (*pieces)[n * PAIR] = k[rows[n] + quad_at(chunk, k_place(local)) / PIECE_QUADS];
        @if(rope) {
          let upper = quad_at(chunk, k_place(local) + CHUNK_QUADS / 2u);
          (*pieces)[n * PAIR + 1u] = k[rows[n] + upper / PIECE_QUADS];
        }
      } else {
        (*pieces)[n * PAIR] = k_pieces::Piece();
        @if(rope) (*pieces)[n * PAIR + 1u] = k_pieces::Piece();
      }
    }
  }
}

fn store_key(n: u32, local: u32, quad: u32, values: vec4<f32>) {
  let vector = vector_of(n, local / K_SPAN, K_TURN, KEY_LANES);
  let column = within_vectors(n, local / K_SPAN, K_TURN, KEY_LANES);
  @unroll for (var e = 0u; e < 4; e++) {
    column_tile[quad / PACKED].steps[e][(quad % PACKED) * KEY_QUADS + vector]
      [(column / 4u) % KEY_LANES][column % 4u] = values[e];
  }
}

fn store_keys(
  pieces: array<k_pieces::Piece, K_LOADS * PAIR>, work: Work, first: u32, chunk: u32, local: u32,
) {
  @unroll for (var n = 0u; n < K_LOADS; n++) {
    let column = k_column(n, local);
    if (column < TILE_KEYS) {
      let quad = k_place(local);
      @if(!rope) {
        let quads = k_pieces::exact_piece(pieces[n], params.nan_bits);
        @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
          store_key(n, local, quad + u, quads[u]);
        }
      }
      @if(rope) {
        let position = min(first + key_of_column(column), work.end_key - 1u);
        let lower = k_pieces::exact_piece(pieces[2 * n], params.nan_bits);
        let upper = k_pieces::exact_piece(pieces[2 * n + 1], params.nan_bits);
        @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
          let turn = turn_of(position, min(quad_at(chunk, quad + u), HALF_QUADS - 1u));
          store_key(n, local, quad + u, turned_lower(lower[u], upper[u], turn));
          store_key(n, local, quad + u + CHUNK_QUADS / 2u, turned_upper(lower[u], upper[u], turn));
        }
      }
    }
  }
}

// A lane's turn n: which key of the stage, and which piece of its row.
// Where turns have whole rows, its piece and its step stay the same.
const WHOLE_ROWS = V_QUADS == KEY_LANES * VALUE_QUADS; // no lane has a piece behind a row's end
const V_SPAN = KEY_LANES * VALUE_QUADS / PIECE_QUADS;

fn v_key(n: u32, local: u32) -> u32 {
  if (WORKGROUP % V_SPAN == 0u) { return local / V_SPAN + n * (WORKGROUP / V_SPAN); }
  return (local + n * WORKGROUP) / V_SPAN;
}
fn v_piece(n: u32, local: u32) -> u32 {
  if (WORKGROUP % V_SPAN == 0u) { return local % V_SPAN; }
  return (local + n * WORKGROUP) % V_SPAN;
}
fn v_step(n: u32, local: u32) -> u32 {
  if (WORKGROUP % (4u * V_SPAN) == 0u) { return (local / V_SPAN) % 4u; }
  return v_key(n, local) % 4u;
}

// The rows of v that a lane loads for the stage whose first key is `first`, as with k.
fn value_rows(work: Work, kv_head: u32, first: u32, local: u32) -> array<u32, V_LOADS> {
  var rows: array<u32, V_LOADS>;
  @unroll for (var n = 0u; n < V_LOADS; n++) {
    rows[n] = v_row(slot_of(work, first + v_key(n, local)), kv_head);
  }
  return rows;
}

// What lies beyond the end has weights of 0.
fn load_values(
  pieces: ptr<function, array<v_pieces::Piece, V_LOADS>>,
  rows: array<u32, V_LOADS>, work: Work, first: u32, local: u32,
) {
  @unroll for (var n = 0u; n < V_LOADS; n++) {
    let has_piece = WHOLE_ROWS || v_piece(n, local) * PIECE_QUADS < V_QUADS;
    if (first + v_key(n, local) < work.end_key && has_piece) {
      (*pieces)[n] = v[rows[n] + v_piece(n, local)];
    }
  }
}

// `number` counts the stages; `looks` says whether numbers that are not finite matter.
fn store_values(pieces: array<v_pieces::Piece, V_LOADS>, local: u32, number: u32, looks: bool) {
  @unroll for (var n = 0u; n < V_LOADS; n++) {
    let key = v_key(n, local);
    if (key < 4u * STAGE_QUADS) {
      let quads = v_pieces::exact_piece(pieces[n], params.nan_bits);
      @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
        let run = v_piece(n, local) * (PIECE_QUADS / VALUE_RUN) + u / VALUE_RUN;
        let vector = (run / KEY_LANES) * VALUE_RUN + u % VALUE_RUN;
        column_tile[key / 4u].steps[v_step(n, local)][vector][run % KEY_LANES] = quads[u];
      }
    }
  }
  if (looks) {
    @unroll for (var n = 0u; n < V_LOADS; n++) {
      let quads = v_pieces::exact_piece(pieces[n], params.nan_bits);
      @unroll for (var u = 0u; u < PIECE_QUADS; u++) {
        let exponents = bitcast<vec4<u32>>(quads[u]) & vec4<u32>(0x7f800000u);
        if (any(exponents == vec4<u32>(0x7f800000u))) {
          atomicMax(&odd_stage, number);
        }
      }
    }
  }
}
