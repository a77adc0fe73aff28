// Weights on their way from the lanes that made them to those that multiply them with values.
//
// A lane's weights come in blocks of RUN keys, a block of all lanes being KEY_LANES · RUN keys. A stage
// has some whole blocks, or a block takes some stages.

import constants::{
  BLOCK_FOURS, BLOCK_ONES, BLOCK_STAGES, BLOCK_TWOS, KEY_LANES, KEY_QUADS, LANE_ROWS, ROW_QUADS, RUN,
  STAGE_BLOCKS,
};
import package::prefill::tiles::row_tile;

// The lanes whose keys of a block are of one stage.
const STAGE_LANES = KEY_LANES / BLOCK_STAGES;

// Stores the weights of a stage's keys as rows. Which block they are of is found by halves: a choice among
// all, weight by weight, would take 64 instructions a stage.
fn store_weights(
  weights: array<vec4<f32>, LANE_ROWS * KEY_QUADS>, stage: u32, row_lane: u32, key_lane: u32,
) {
  if (key_lane / STAGE_LANES == stage % BLOCK_STAGES) {
    let block = stage / BLOCK_STAGES;
    @unroll for (var a = 0u; a < BLOCK_FOURS; a++) {
      if (block / (BLOCK_TWOS * BLOCK_ONES) == a) {
        @unroll for (var b = 0u; b < BLOCK_TWOS; b++) {
          if ((block / BLOCK_ONES) % BLOCK_TWOS == b) {
            @unroll for (var c = 0u; c < BLOCK_ONES; c++) {
              if (block % BLOCK_ONES == c) {
                const first = ((a * BLOCK_TWOS + b) * BLOCK_ONES + c) * STAGE_BLOCKS * RUN;
                @unroll for (var place = 0u; place < STAGE_BLOCKS * RUN; place++) {
                  let step = ((place / RUN) * KEY_LANES + key_lane % STAGE_LANES) * RUN + place % RUN;
                  @unroll for (var i = 0u; i < ROW_QUADS; i++) {
                    row_tile[step / 4u].steps[step % 4u].rows[i][row_lane] = vec4<f32>(
                      weights[(4 * i) * KEY_QUADS + (first + place) / 4][(first + place) % 4],
                      weights[(4 * i + 1) * KEY_QUADS + (first + place) / 4][(first + place) % 4],
                      weights[(4 * i + 2) * KEY_QUADS + (first + place) / 4][(first + place) % 4],
                      weights[(4 * i + 3) * KEY_QUADS + (first + place) / 4][(first + place) % 4],
                    );
                  }
                }
              }
            }
          }
        }
      }
    }
  }
}
