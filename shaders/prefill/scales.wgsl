// The scales of a lane's keys of a tile, in the order of its weights: logits take those of keys, weights
// those of values, since a lane has as many of either as it has keys.

import constants::KEY_QUADS;
import package::address::slot_of;
import package::params::Work;
import package::prefill::tiles::key_of;
import package::token_scales::scales_at;

struct KeyScales {
  k: array<vec4<f32>, KEY_QUADS>,
  v: array<vec4<f32>, KEY_QUADS>,
}

// Beyond the end, the last key's stand for all.
fn load_scales(work: Work, kv_head: u32, first: u32, key_lane: u32) -> KeyScales {
  var scales: KeyScales;
  @unroll for (var j = 0u; j < KEY_QUADS; j++) {
    @unroll for (var n = 0u; n < 4u; n++) {
      let key = min(first + key_of(4u * j + n, key_lane), work.end_key - 1u);
      let own = scales_at(slot_of(work, key), kv_head);
      scales.k[j][n] = own.x;
      scales.v[j][n] = own.y;
    }
  }
  return scales;
}
