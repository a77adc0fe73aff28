// What the KEY_LANES lanes that share rows do together, by shuffles: they lie within a subgroup.

import constants::{KEY_LANES, LANE_ROWS, SHARING_STEPS};

// Tint demands the extension, naga does not know it.
@if(enable_subgroups) enable subgroups;

fn rows_max(values: array<f32, LANE_ROWS>, local: u32) -> array<f32, LANE_ROWS> {
  var result = values;
  @unroll for (var s = 0u; s < SHARING_STEPS; s++) {
    @unroll for (var i = 0u; i < LANE_ROWS; i++) {
      result[i] = max(result[i], subgroupShuffleXor(result[i], KEY_LANES >> (s + 1u)));
    }
  }
  return result;
}

fn rows_sum(values: array<f32, LANE_ROWS>, local: u32) -> array<f32, LANE_ROWS> {
  var result = values;
  @unroll for (var s = 0u; s < SHARING_STEPS; s++) {
    @unroll for (var i = 0u; i < LANE_ROWS; i++) {
      result[i] += subgroupShuffleXor(result[i], KEY_LANES >> (s + 1u));
    }
  }
  return result;
}

// Whether it is so for a lane of the rows (and perhaps of rows beside them).
fn any_lane(flag: bool) -> bool {
  return subgroupAny(flag);
}
