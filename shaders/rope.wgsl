// Rotary position encoding (NeoX halves): dims i and i + headDim / 2 turn by position · frequency_i.
//
// Turns come from tables that the host computes in float64 (src/webgpu/rope_table.ts): of positions
// 0 to 255, and of every 256th; a position's turn is the product of one of each.

import constants::ROPE_QUADS;
import package::params::params;

// Position, quad of frequencies, then cosines and sines.
@group(0) @binding(8) var<storage, read> turns: array<vec4<f32>>;

struct Turn {
  cosine: vec4<f32>,
  sine: vec4<f32>,
}

fn turn_of(position: u32, quad: u32) -> Turn {
  let fine = ((position % 256u) * ROPE_QUADS + quad) * 2u;
  let coarse = params.rope_coarse + ((position / 256u) * ROPE_QUADS + quad) * 2u;
  let a = Turn(turns[fine], turns[fine + 1u]);
  let b = Turn(turns[coarse], turns[coarse + 1u]);
  return Turn(
    a.cosine * b.cosine - a.sine * b.sine,
    a.sine * b.cosine + a.cosine * b.sine,
  );
}

// Where there are more queries than keys, the first stand before position 0.
fn turn_of_signed(position: i32, quad: u32) -> Turn {
  var turn = turn_of(u32(abs(position)), quad);
  turn.sine = select(turn.sine, -turn.sine, position < 0);
  return turn;
}

fn turned_lower(lower: vec4<f32>, upper: vec4<f32>, turn: Turn) -> vec4<f32> {
  return lower * turn.cosine - upper * turn.sine;
}

fn turned_upper(lower: vec4<f32>, upper: vec4<f32>, turn: Turn) -> vec4<f32> {
  return upper * turn.cosine + lower * turn.sine;
}
