// The one address rule of every cache, in pieces:
//   page · page_stride + token · token_stride + head · head_stride
// NHD and HND differ in strides only. A padded cache is a paged one with a long page a request, and
// needs no table. The binding may be a window of the cache, which begins at its base.

import constants::PAGE_SIZE;
import package::params::{Work, params};

@if(paged) @group(0) @binding(7) var<storage, read> page_table: array<u32>;

struct Slot {
  page: u32,
  token: u32,
}

// Past the end, the last key's page: the table holds no more.
@if(paged) fn slot_of(work: Work, wanted: u32) -> Slot {
  let position = min(wanted, max(work.end_key, 1u) - 1u);
  return Slot(page_table[work.first_page + position / PAGE_SIZE], position % PAGE_SIZE);
}

@else fn slot_of(work: Work, position: u32) -> Slot {
  return Slot(work.first_page, position);
}

fn k_row(slot: Slot, kv_head: u32) -> u32 {
  return slot.token * params.k_token +
    (slot.page * params.k_page + kv_head * params.k_head - params.k_base);
}

fn v_row(slot: Slot, kv_head: u32) -> u32 {
  return slot.token * params.v_token +
    (slot.page * params.v_page + kv_head * params.v_head - params.v_base);
}
