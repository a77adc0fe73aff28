// Scales of each token and KV head, in pairs: that of the key, then that of the value. One load of both
// costs next to nothing where two cost a tenth of decode (bench/notes/paged.md). A head's lie side by
// side, token by token, whatever the layout of the cache is.

import package::address::Slot;
import package::params::params;

@group(0) @binding(7) var<storage, read> kv_scales: array<vec2<f32>>;

fn scales_at(slot: Slot, kv_head: u32) -> vec2<f32> {
  return kv_scales[slot.page * params.scales_page + kv_head * params.scales_head + slot.token];
}
