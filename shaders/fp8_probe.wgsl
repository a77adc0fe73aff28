// Decodes all 256 codes with one format module: the self-test by which a device's way is chosen.
//
// Grid: one workgroup; lane i decodes the word that holds codes 4i to 4i + 3.
// Bindings: 0 out, the float32 bits of each code's value.

import package::piece_format::{UNIT, decode_quad};
import package::pieces::marks_of;

@group(0) @binding(0) var<storage, read_write> out: array<vec4<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) local: u32) {
  let word = local * 0x04040404u + 0x03020100u;
  let bits = bitcast<vec4<u32>>(decode_quad(word) * UNIT);
  @if(nan_marks) out[local] = select(bits, vec4<u32>(0x7fc00000u),
    (vec4<u32>(marks_of(word)) & vec4<u32>(0x80u, 0x8000u, 0x800000u, 0x80000000u)) != vec4<u32>(0u));
  @else out[local] = bits;
}
