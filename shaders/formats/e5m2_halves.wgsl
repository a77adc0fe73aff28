// FP8 e5m2 by way of halves: a code is the high byte of a half, two codes an instruction, infinities
// and NaN included. A quad (4 elements) is one word.

alias Quad = u32;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(word: Quad) -> vec4<f32> {
  let even = unpack2x16float((word << 8u) & 0xff00ff00u);
  let odd = unpack2x16float(word & 0xff00ff00u);
  return vec4<f32>(even.x, odd.x, even.y, odd.y);
}
