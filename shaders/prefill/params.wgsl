// What a dispatch of prefill is told beyond its constants. src/webgpu/prefill_tables.ts writes both.

struct Params {
  num_work: u32,       // workgroups that have work
  num_kv_heads: u32,   // KV heads of this dispatch,
  first_kv_head: u32,  // from this one on
  num_qo_heads: u32,
  group: u32,          // query heads of one KV head
  write_lse: u32,      // whether lse is wanted
  heads_at: u32,       // where the entries of the query heads begin in tables
  mask_at: u32,        // where the mask begins there
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
  causal: u32,         // whether a query sees no key behind its own position
  window_left: i32,    // the keys before its own that a query sees; a large number for all
  nan_bits: u32,       // a NaN: constants may not be
  variant_at: u32,     // where the numbers of a variant begin in tables
  scales_page: u32,    // strides of the scales of tokens, if there are any, in pairs
  scales_head: u32,
  pages_at: u32,       // where the page table begins in tables then
}

@group(0) @binding(0) var<uniform> params: Params;

// Some packed rows of one request, row p being head p % group of query p / group, and some keys: what a
// workgroup does for a KV head.
struct Work {
  q_row: u32,          // of the request's first query in q
  qo_len: u32,
  kv_len: u32,
  first_page: u32,     // the request's page, or its first entry in the page table
  first_row: u32,      // packed
  first_key: u32,      // a multiple of 32
  end_key: u32,        // one past the last key that any of the rows sees; 0 where there is none
  out_row: u32,        // of the request's first query in out,
  out_step: u32,       // and from each query to the next
  mask_word: u32,      // where the request's mask begins, in words
  request: u32,
}

// A packed row's query, position and head; rows past the end repeat the last.
struct Row {
  query: u32,
  position: i32, // among the keys: the last query stands at the last key
  qo_head: u32,
}

fn row_at(work: Work, kv_head: u32, row: u32) -> Row {
  let packed = min(row, work.qo_len * params.group - 1u);
  let query = packed / params.group;
  let position = i32(work.kv_len) - i32(work.qo_len) + i32(query);
  return Row(query, position, kv_head * params.group + packed % params.group);
}

// What a query head needs.
struct Head {
  logit_scale: f32,    // q·k times this is a logit in base 2, or the tangent's argument under a cap
  out_scale: f32,
  slope: f32,          // ALiBi's, in the unit of scaled logits
  sink: f32,           // in base 2
}

// Three entries a work, then one a query head, then the mask, then a variant's numbers, then with
// scales of tokens the page table.
@group(0) @binding(1) var<storage, read> tables: array<vec4<u32>>;

fn work_at(index: u32) -> Work {
  let a = tables[3u * index];
  let b = tables[3u * index + 1u];
  let c = tables[3u * index + 2u];
  return Work(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, c.y, c.z);
}

fn head_at(qo_head: u32) -> Head {
  let x = bitcast<vec4<f32>>(tables[params.heads_at + qo_head]);
  return Head(x.x, x.y, x.z, x.w);
}

// A word of the mask, 32 keys.
fn mask_at(work: Work, query: u32, key: u32) -> u32 {
  let word = work.mask_word + query * ((work.kv_len + 31u) / 32u) + key / 32u;
  return tables[params.mask_at + word / 4u][word % 4u];
}

// A number of the caller's variant.
fn variant_number(index: u32) -> f32 {
  return bitcast<f32>(tables[params.variant_at + index / 4u][index % 4u]);
}
