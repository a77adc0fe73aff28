// Encodes float32 as float16 as f16.wgsl does, by addition. A quad is 2 words.

import package::formats::addition::added_half_bits;

alias Quad = vec2<u32>;

fn encode_quad(values: vec4<f32>) -> Quad {
  let bits = added_half_bits(values);
  return bits.xz | (bits.yw << vec2<u32>(16u));
}
