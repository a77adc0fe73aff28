// Encodes float32 as float16 as f16.wgsl does, by addition. A quad is 2 words.

import package::formats::addition::added_half_words;

alias Quad = vec2<u32>;

fn encode_quad(values: vec4<f32>) -> Quad {
  return added_half_words(values);
}
