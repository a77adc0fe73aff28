// Scales of each token and KV head: one of its key, one of its value. A head's lie side by side, token by
// token, whatever the layout of the cache is.

import package::address::Slot;
import package::params::params;

@group(0) @binding(7) var<storage, read> kv_scales: array<f32>;

// The scale of the key, then of the value.
fn scales_at(slot: Slot, kv_head: u32) -> vec2<f32> {
  let at = slot.page * params.scales_page + kv_head * params.scales_head + slot.token;
  return vec2<f32>(kv_scales[at], kv_scales[at + params.scales_part]);
}
