// What the KEY_LANES lanes that share rows do together, through workgroup memory: the portable way. All
// lanes of the workgroup must call these, since they meet barriers.

import constants::{KEY_LANES, LANE_ROWS, WORKGROUP};

var<workgroup> shared_rows: array<f32, WORKGROUP * LANE_ROWS>;

fn share(values: array<f32, LANE_ROWS>, local: u32) {
  workgroupBarrier();
  @unroll for (var i = 0u; i < LANE_ROWS; i++) {
    shared_rows[i * WORKGROUP + local] = values[i];
  }
  workgroupBarrier();
}

fn rows_max(values: array<f32, LANE_ROWS>, local: u32) -> array<f32, LANE_ROWS> {
  share(values, local);
  let first = local - local % KEY_LANES;
  var result = values;
  for (var lane = 0u; lane < KEY_LANES; lane++) {
    @unroll for (var i = 0u; i < LANE_ROWS; i++) {
      result[i] = max(result[i], shared_rows[i * WORKGROUP + first + lane]);
    }
  }
  return result;
}

fn rows_sum(values: array<f32, LANE_ROWS>, local: u32) -> array<f32, LANE_ROWS> {
  share(values, local);
  let first = local - local % KEY_LANES;
  var result: array<f32, LANE_ROWS>;
  @unroll for (var i = 0u; i < LANE_ROWS; i++) {
    result[i] = 0.0;
  }
  for (var lane = 0u; lane < KEY_LANES; lane++) {
    @unroll for (var i = 0u; i < LANE_ROWS; i++) {
      result[i] += shared_rows[i * WORKGROUP + first + lane];
    }
  }
  return result;
}

fn any_lane(flag: bool) -> bool {
  return true;
}
