// Weights on their way from the lanes that made them to those that multiply them with values.
//
// A lane's weights come in blocks of RUN keys, a block of all lanes being KEY_LANES · RUN keys. A stage
// has some whole blocks, or a block takes some stages.

import constants::{
  BLOCK_STAGES, KEY_LANES, KEY_QUADS, LANE_KEYS, LANE_ROWS, ROW_QUADS, RUN, STAGE_BLOCKS,
};
import package::prefill::tiles::row_tile;

// The lanes whose keys of a block are of one stage.
const STAGE_LANES = KEY_LANES / BLOCK_STAGES;

// Stores the weights of a stage's keys as rows.
fn store_weights(
  weights: array<vec4<f32>, LANE_ROWS * KEY_QUADS>, stage: u32, row_lane: u32, key_lane: u32,
) {
  if (key_lane / STAGE_LANES == stage % BLOCK_STAGES) {
    @unroll for (var block = 0u; block < LANE_KEYS / RUN; block++) {
      if (stage / BLOCK_STAGES == block / STAGE_BLOCKS) {
        @unroll for (var n = 0u; n < RUN; n++) {
          let step = ((block % STAGE_BLOCKS) * KEY_LANES + key_lane % STAGE_LANES) * RUN + n;
          @unroll for (var i = 0u; i < ROW_QUADS; i++) {
            row_tile[step / 4u].steps[step % 4u].rows[i][row_lane] = vec4<f32>(
              weights[(4 * i) * KEY_QUADS + (block * RUN + n) / 4][(block * RUN + n) % 4],
              weights[(4 * i + 1) * KEY_QUADS + (block * RUN + n) / 4][(block * RUN + n) % 4],
              weights[(4 * i + 2) * KEY_QUADS + (block * RUN + n) / 4][(block * RUN + n) % 4],
              weights[(4 * i + 3) * KEY_QUADS + (block * RUN + n) / 4][(block * RUN + n) % 4],
            );
          }
        }
      }
    }
  }
}
