// Converts a tensor to another dtype, with one factor (quantize and dequantize).
//
// Grid: one workgroup of WORKGROUP lanes for WORKGROUP · ROUNDS pieces, folded over x and y.
// Bindings: 0 params; 1 source; 2 result.
//
// A lane takes ROUNDS pieces that lie WORKGROUP apart, and has all of them in flight at once. The last
// piece may reach past the tensor's end: memory is whole pieces of 16 bytes.

import constants::{ROUNDS, WORKGROUP};
import package::convert::{OutPiece, converted};
import package::pieces::Piece;

struct QuantizeParams {
  num_pieces: u32,
  factor: f32,
}

@group(0) @binding(0) var<uniform> params: QuantizeParams;
@group(0) @binding(1) var<storage, read> source: array<Piece>;
@group(0) @binding(2) var<storage, read_write> result: array<OutPiece>;

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let first = (workgroup.y * grid.x + workgroup.x) * (WORKGROUP * ROUNDS) + local;
  var pieces: array<Piece, ROUNDS>;
  @unroll for (var r = 0u; r < ROUNDS; r++) {
    pieces[r] = source[min(first + r * WORKGROUP, params.num_pieces - 1u)];
  }
  @unroll for (var r = 0u; r < ROUNDS; r++) {
    if (first + r * WORKGROUP < params.num_pieces) {
      result[first + r * WORKGROUP] = converted(pieces[r], params.factor);
    }
  }
}
