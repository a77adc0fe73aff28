// A product of prefill: a stage of outer products of what lies in the two tiles, onto a lane's sums. It is
// linked twice, with other names for QUADS, DEPTH and PACK (src/webgpu/prefill_plan.ts):
//   scores_product   S += q·kᵀ, a step being a dim of a chunk, its columns the lane's keys
//   values_product   O += P·v, a step being a key of a stage, its columns the lane's dims of v
//
// Operands are read while the step before is multiplied, those of a stage's first step before anything
// else that follows the barrier: a read takes as long as 30 FMAs. Columns are gone through to and fro, so
// that an FMA shares an operand with the one before it: at full rate a processor reads two registers an
// FMA, and the third only if it has kept it (bench/notes/prefill.md).

import constants::{DEPTH, LANE_ROWS, PACK, QUADS, ROW_QUADS, UNROLL};
import package::prefill::tiles::{column_tile, row_tile};

struct Step {
  rows: array<vec4<f32>, ROW_QUADS>,
  columns: array<vec4<f32>, QUADS>,
}

fn first_step(row_lane: u32, key_lane: u32) -> Step {
  var step: Step;
  @unroll for (var j = 0u; j < QUADS; j++) {
    step.columns[j] = column_tile[0].steps[0][j][key_lane];
  }
  @unroll for (var i = 0u; i < ROW_QUADS; i++) {
    step.rows[i] = row_tile[0].steps[0].rows[i][row_lane];
  }
  return step;
}

fn add_product(
  sums: ptr<function, array<vec4<f32>, LANE_ROWS * QUADS>>, first: Step, row_lane: u32, key_lane: u32,
) {
  var next = first;
  var base = 0u;
  loop {
    @unroll for (var u = 0u; u < UNROLL; u++) {
      @unroll for (var e = 0u; e < 4; e++) {
        let step = next;
        // Behind the last step nobody looks at what this reads.
        let quad = base + u + (e + 1u) / 4u;
        @unroll for (var j = 0u; j < QUADS; j++) {
          next.columns[j] =
            column_tile[quad / PACK].steps[(e + 1u) % 4u][(quad % PACK) * QUADS + j][key_lane];
        }
        @unroll for (var i = 0u; i < ROW_QUADS; i++) {
          next.rows[i] = row_tile[quad].steps[(e + 1u) % 4u].rows[i][row_lane];
        }
        @unroll for (var i = 0u; i < ROW_QUADS; i++) {
          @unroll for (var n = 0u; n < 4; n += 2) {
            // Few expressions a statement: naga takes seconds where each computes its indices.
            let row = step.rows[i][n];
            @unroll for (var j = 0u; j < QUADS; j++) {
              let column = step.columns[j];
              let sum = &(*sums)[(4 * i + n) * QUADS + j];
              (*sum).x = fma(row, column.x, (*sum).x);
              (*sum).y = fma(row, column.y, (*sum).y);
              (*sum).z = fma(row, column.z, (*sum).z);
              (*sum).w = fma(row, column.w, (*sum).w);
            }
            // The next row, back.
            let next_row = step.rows[i][n + 1];
            @unroll for (var j = 0u; j < QUADS; j++) {
              let column = step.columns[QUADS - 1 - j];
              let sum = &(*sums)[(4 * i + n + 2) * QUADS - 1 - j];
              (*sum).w = fma(next_row, column.w, (*sum).w);
              (*sum).z = fma(next_row, column.z, (*sum).z);
              (*sum).y = fma(next_row, column.y, (*sum).y);
              (*sum).x = fma(next_row, column.x, (*sum).x);
            }
          }
        }
      }
    }
    base += UNROLL;
    // Known to the compiler, so that there is no loop: sums would change their registers around it.
    if (UNROLL == DEPTH) { break; }
    if (base >= DEPTH) { break; }
  }
}
