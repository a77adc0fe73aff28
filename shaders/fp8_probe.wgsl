// Decodes with one format module: all 256 codes, by which the ways of a device are tested, and many words
// in registers, by which they are timed.
//
// Grid: any number of workgroups. Lane i of each decodes the word that holds codes 4i to 4i + 3, then
//   `rounds` times WORDS words, as attention does: values are summed up, NaN codes are looked for.
// Bindings: 0 out, the float32 bits of each code's value, and behind them what is never written; 1 rounds.

import constants::{WORDS, WORKGROUP};
import package::piece_format::{UNIT, decode_quad};
@if(nan_marks) import package::pieces::{marks_of, nan_mark};

@group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(1) var<uniform> rounds: vec4<u32>;

const CODE_QUADS = 64u;
// Odd, so that the words of a lane run through all.
const STEP = 0x9e3779b9u;

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(local_invocation_index) local: u32,
  @builtin(global_invocation_id) global: vec3<u32>,
) {
  let codes = (local % CODE_QUADS) * 0x04040404u + 0x03020100u;
  let bits = bitcast<vec4<u32>>(decode_quad(codes) * UNIT);
  @if(nan_marks) let exact = select(bits, vec4<u32>(0x7fc00000u),
    (vec4<u32>(marks_of(codes)) & vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u)) != vec4<u32>(0u));
  @if(!nan_marks) let exact = bits;
  if (global.x < CODE_QUADS) {
    out[global.x] = exact;
  }

  var word = global.x * 0x85ebca6bu;
  var sum = vec4<f32>(0.0);
  @if(nan_marks) var mark = 0u;
  for (var round = 0u; round < rounds.x; round++) {
    @unroll for (var i = 0u; i < WORDS; i++) {
      word += STEP;
      sum += decode_quad(word);
      @if(nan_marks) mark |= nan_mark(word);
    }
  }
  // A compiler may not leave out what could be written; the words are arbitrary.
  var hash = bitcast<vec4<u32>>(sum);
  @if(nan_marks) hash.x ^= mark;
  if (all(hash == vec4<u32>(0x9e3779b9u, 0x7f4a7c15u, 0x85ebca6bu, 0xc2b2ae35u))) {
    out[CODE_QUADS] = hash;
  }
}
