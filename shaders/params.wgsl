// What a dispatch of decode is told beyond its constants. src/webgpu/decode_tables.ts writes both.

struct Params {
  num_work: u32,       // workgroups that have work
  head_blocks: u32,    // blocks of query heads of one group
  num_kv_heads: u32,   // KV heads of this dispatch,
  first_kv_head: u32,  // from this one on
  num_qo_heads: u32,
  group: u32,          // query heads of one KV head
  write_lse: u32,      // whether lse is wanted
  heads_at: u32,       // where the entries of the query heads begin in tables
  q_token: u32,        // strides of q and out in quads (4 elements), of k and v in pieces
  q_head: u32,
  out_token: u32,
  out_head: u32,
  k_page: u32,
  k_token: u32,
  k_head: u32,
  k_base: u32,         // the piece at which the binding of k begins
  v_page: u32,
  v_token: u32,
  v_head: u32,
  v_base: u32,
  lse_scale: f32,      // 1, or ln 2 for natural logarithms
  soft_cap: f32,       // cap · log2(e)
  rope_coarse: u32,    // where the coarse turns begin in turns
  nan_bits: u32,       // a NaN: constants may not be
  scales_page: u32,    // strides of the scales of tokens, if there are any, in pairs
  scales_head: u32,
  pages_at: u32,       // where the page table begins in tables then
}

@group(0) @binding(0) var<uniform> params: Params;

// One stretch of keys of one request: what a workgroup does for a KV head.
struct Work {
  q_row: u32,
  out_row: u32,        // q_row, or the row of a partial state
  first_key: u32,
  end_key: u32,        // one past the last key; first_key where there is none
  first_page: u32,     // the request's page, or its first entry in the page table
  kv_len: u32,         // the request's keys: its query stands at the last
}

// What a query head needs.
struct Head {
  logit_scale: f32,    // q·k times this is a logit in base 2, or the tangent's argument under a cap
  out_scale: f32,
  slope: f32,          // ALiBi's, in the unit of scaled logits
  sink: f32,           // in base 2
}

// Two entries a stretch, then one a query head, then with scales of tokens the page table.
@group(0) @binding(1) var<storage, read> tables: array<vec4<u32>>;

fn work_at(index: u32) -> Work {
  let a = tables[2u * index];
  let b = tables[2u * index + 1u];
  return Work(a.x, a.y, a.z, a.w, b.x, b.y);
}

fn head_at(qo_head: u32) -> Head {
  let x = bitcast<vec4<f32>>(tables[params.heads_at + qo_head]);
  return Head(x.x, x.y, x.z, x.w);
}
