// Encodes float32 as FP8 e5m2 as e5m2_encode.wgsl does, by addition. A quad is one word.

import package::formats::addition::{Format, added_fp8_word};

alias Quad = u32;

fn encode_quad(values: vec4<f32>) -> Quad {
  return added_fp8_word(values, Format(2u, 113u, 0x47600000u)); // 57344
}
