// What a dispatch of append is told beyond its constants. src/webgpu/append_tables.ts writes both.

struct Params {
  num_work: u32,       // lanes that have work, or rows where they have scales of their own,
  key_work: u32,       // of which the first so many take keys
  num_heads: u32,
  rope_coarse: u32,    // where the coarse turns begin in turns
  k_page: u32,         // strides of the cache in pieces
  k_token: u32,
  k_head: u32,
  k_base: u32,         // where page 0 of the slots begins in its binding
  v_page: u32,
  v_token: u32,
  v_head: u32,
  v_base: u32,
  scales_page: u32,    // strides of the scales of tokens, if there are any, in pairs,
  scales_head: u32,
  scales_base: u32,    // and where page 0 of the slots begins there
}

@group(0) @binding(0) var<uniform> params: Params;

// Where a token goes.
struct Slot {
  row: u32,            // of the appended tensors
  page: u32,           // counted from the first page of the dispatch
  place: u32,          // in the page
  position: u32,       // in its request
}

// An entry a token.
@group(0) @binding(1) var<storage, read> slots: array<vec4<u32>>;

fn slot_at(index: u32) -> Slot {
  let x = slots[index];
  return Slot(x.x, x.y, x.z, x.w);
}
