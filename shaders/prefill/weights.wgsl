// Weights on their way from the lanes that made them to those that multiply them with values.

import constants::{KEY_LANES, ROW_LANES, ROW_QUADS, RUN};

// Weights of a block of RUN · KEY_LANES keys: a run of keys, each with its rows, by the lane's vector and
// the lane. The filling moves neighbours to other banks.
struct WeightGroup {
  keys: array<array<array<vec4<f32>, ROW_LANES>, ROW_QUADS>, RUN>,
  filling: vec4<f32>,
}
var<workgroup> p_tile: array<WeightGroup, KEY_LANES>;

// The weights of key `n` of a quad of the block's keys, for a vector of rows.
fn weights_at(quad: u32, n: u32, vector: u32, row_lane: u32) -> vec4<f32> {
  return p_tile[quad * (4u / RUN) + n / RUN].keys[n % RUN][vector][row_lane];
}
