// The one address rule of every cache, in pieces:
//   page · page_stride + token · token_stride + head · head_stride
// NHD and HND differ in strides only. A padded cache is a paged one with a long page a request, and
// needs no table. The binding may be a window of the cache, which begins at its base.

import constants::PAGE_SIZE;
import package::params::{Work, params, tables};

@if(paged && !token_scales) @group(0) @binding(7) var<storage, read> page_table: array<u32>;

struct Slot {
  page: u32,
  token: u32,
}

@if(paged && !token_scales) fn page_number(entry: u32) -> u32 {
  return page_table[entry];
}
// The binding is that of the scales, and the page table lies behind the other tables: a stage has 8.
@if(paged && token_scales) fn page_number(entry: u32) -> u32 {
  return tables[params.pages_at + entry / 4u][entry % 4u];
}

// The page of a position. Past the end, the last key's: the table holds no more.
@if(paged) fn page_of(work: Work, wanted: u32) -> u32 {
  return page_number(work.first_page + min(wanted, max(work.end_key, 1u) - 1u) / PAGE_SIZE);
}
@else fn page_of(work: Work, wanted: u32) -> u32 {
  return work.first_page;
}

// The place of a position in its page.
@if(paged) fn place_of(position: u32) -> u32 {
  return position % PAGE_SIZE;
}
@else fn place_of(position: u32) -> u32 {
  return position;
}

fn slot_of(work: Work, position: u32) -> Slot {
  return Slot(page_of(work, position), place_of(position));
}

// Sums in such an order that what stays the same is added up once: all but the token, or, where the strides
// of k and v are `alike`, what the two share. Which is faster, a driver's compiler decides.
@if(!paged && !alike) fn k_row(slot: Slot, kv_head: u32) -> u32 {
  return slot.token * params.k_token +
    (slot.page * params.k_page + kv_head * params.k_head - params.k_base);
}
@if(!paged && !alike) fn v_row(slot: Slot, kv_head: u32) -> u32 {
  return slot.token * params.v_token +
    (slot.page * params.v_page + kv_head * params.v_head - params.v_base);
}

@if(paged || alike) fn k_row(slot: Slot, kv_head: u32) -> u32 {
  return (slot.page * params.k_page + slot.token * params.k_token) +
    (kv_head * params.k_head - params.k_base);
}
@if(alike) fn v_row(slot: Slot, kv_head: u32) -> u32 {
  return (slot.page * params.k_page + slot.token * params.k_token) +
    (kv_head * params.v_head - params.v_base);
}
@if(paged && !alike) fn v_row(slot: Slot, kv_head: u32) -> u32 {
  return (slot.page * params.v_page + slot.token * params.v_token) +
    (kv_head * params.v_head - params.v_base);
}
