// The tensors that appends read and write, and where the rows of a token lie in them.

import constants::{KEY_PIECES, VALUE_PIECES};
import package::convert::OutPiece;
import package::params::{Slot, params, slot_at};
import package::pieces::Piece;

@group(0) @binding(3) var<storage, read> keys: array<Piece>;
@group(0) @binding(4) var<storage, read> values: array<Piece>;
@group(0) @binding(5) var<storage, read_write> k: array<OutPiece>;
// One tensor may hold both: a buffer cannot be bound twice for writing.
@if(!joined) @group(0) @binding(6) var<storage, read_write> v: array<OutPiece>;

// The row of a token and head.
struct Row {
  slot: Slot,
  head: u32,
}

// Rows of a tensor, all heads of a token first.
fn row_of(index: u32) -> Row {
  return Row(slot_at(index / params.num_heads), index % params.num_heads);
}

// Where it begins in the appended tensors.
fn source_key(row: Row) -> u32 {
  return (row.slot.row * params.num_heads + row.head) * KEY_PIECES;
}
fn source_value(row: Row) -> u32 {
  return (row.slot.row * params.num_heads + row.head) * VALUE_PIECES;
}

// Where it begins in the cache.
fn cache_key(row: Row) -> u32 {
  return params.k_base + row.slot.page * params.k_page + row.slot.place * params.k_token +
    row.head * params.k_head;
}
fn cache_value(row: Row) -> u32 {
  return params.v_base + row.slot.page * params.v_page + row.slot.place * params.v_token +
    row.head * params.v_head;
}

fn store_value(at: u32, piece: OutPiece) {
  @if(joined) {
    k[at] = piece;
  }
  @if(!joined) {
    v[at] = piece;
  }
}
