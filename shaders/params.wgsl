// What a dispatch is told beyond its constants. src/webgpu/decode.ts writes both structures.

struct Params {
  num_work: u32,      // workgroups that have work
  head_blocks: u32,   // blocks of query heads of one group
  num_kv_heads: u32,
  num_qo_heads: u32,
  group: u32,         // query heads of one KV head
  write_lse: u32,     // whether the caller wants lse
  q_token: u32,       // strides of q and out in quads (4 elements), of k and v in pieces
  q_head: u32,
  out_token: u32,
  out_head: u32,
  k_page: u32,
  k_token: u32,
  k_head: u32,
  v_page: u32,
  v_token: u32,
  v_head: u32,
  logit_scale: f32,   // smScale · kScale · log2(e)
  out_scale: f32,     // vScale
}

struct Request {
  q_start: u32,       // its first row of q and out
  q_len: u32,
  kv_len: u32,        // keys in use
  first_page: u32,    // its page, or its first entry in the page table
}

@group(0) @binding(0) var<uniform> params: Params;
