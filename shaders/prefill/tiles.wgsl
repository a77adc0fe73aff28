// The two tiles in workgroup memory, and who has what of them.
//
// A stage is some steps of an outer product: the rows' numbers of a step times the columns'. For q·k a
// step is a dim: the rows are those of q, the columns keys. For P·v it is a key: the rows are weights, the
// columns dims of v. Steps come in quads. A lane has LANE_ROWS rows in vectors of 4, and vectors of 4
// columns. Two places by turns would save a barrier a stage, and were no faster (bench/notes/prefill.md).

import constants::{
  COLUMN_QUADS, COLUMN_TILES, KEY_LANES, ROW_LANES, ROW_QUADS, ROW_TILES, RUN, VALUE_RUN,
};

// The filling moves what lanes store side by side to different banks: the weights of keys that follow
// each other, and quads of dims.
struct RowStep {
  rows: array<array<vec4<f32>, ROW_LANES>, ROW_QUADS>,
  filling: vec4<f32>,
}
struct RowSteps {
  steps: array<RowStep, 4>,
  filling: array<vec4<f32>, 2>,
}
// Rows of v may be wider than a tile's keys: then PACKED quads of dims of k lie side by side.
struct ColumnSteps {
  steps: array<array<array<vec4<f32>, KEY_LANES>, COLUMN_QUADS>, 4>,
  filling: array<vec4<f32>, 2>,
}

var<workgroup> row_tile: array<RowSteps, ROW_TILES>;
var<workgroup> column_tile: array<ColumnSteps, COLUMN_TILES>;

// The row of a lane's place in a tile: four rows side by side, then 4 · lanes further.
fn row_of(place: u32, row_lane: u32) -> u32 {
  return (place / 4u) * (4u * ROW_LANES) + 4u * row_lane + place % 4u;
}

// The key of a lane's place: RUN keys side by side.
fn key_of(place: u32, key_lane: u32) -> u32 {
  return (place / RUN) * (RUN * KEY_LANES) + RUN * key_lane + place % RUN;
}

// The quad of dims of v in a lane's vector: VALUE_RUN quads side by side.
fn value_quad_of(vector: u32, key_lane: u32) -> u32 {
  return ((vector / VALUE_RUN) * KEY_LANES + key_lane) * VALUE_RUN + vector % VALUE_RUN;
}
