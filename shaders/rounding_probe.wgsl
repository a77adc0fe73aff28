// Rounds hard values by addition: the self-test by which a device's way of rounding is chosen. The
// values, by their bits: of every exponent, 16 multiples of 1/16 and 16 of 1/2048, which are midpoints
// of FP8 and of halves, and their neighbours. Then packs the values of all e4m3 codes as halves.
//
// Grid: one workgroup; a lane takes every 64th quad. src/webgpu/rounding_probe.ts makes the values again.
// Bindings: 0 out, four words a quad: its codes in e4m3fn, in e5m2, and in float16; then for each quad
//   of e4m3 codes two words, and two that mean nothing.

import constants::{FIRST_EXPONENT, QUADS};
import package::formats::{e4m3_add, e4m3_bits, e5m2_add, f16_add, f16_pack};

@group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;

fn hard_value(index: u32) -> f32 {
  let place = (index / 3u) % 32u;
  let fine = ((place * 389u) % 2048u) << 12u;
  let mantissa = select(fine, place << 19u, place < 16u);
  let exponent = FIRST_EXPONENT + index / 96u;
  let sign = (index / 3u % 2u) << 31u;
  return bitcast<f32>(sign + (exponent << 23u) + mantissa + index % 3u - 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
  for (var quad = local; quad < QUADS; quad += 64u) {
    let first = 4u * quad;
    let values = vec4<f32>(
      hard_value(first), hard_value(first + 1u), hard_value(first + 2u), hard_value(first + 3u),
    );
    out[quad] = vec4<u32>(
      e4m3_add::encode_quad(values), e5m2_add::encode_quad(values), f16_add::encode_quad(values),
    );
  }
  // Codes 4 · local to 4 · local + 3.
  let word = 0x03020100u + local * 0x04040404u;
  out[QUADS + local] = vec4<u32>(f16_pack::encode_quad(e4m3_bits::decode_quad(word)), 0u, 0u);
}
