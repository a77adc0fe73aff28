// Encodes float32 as FP8 e4m3fn as e4m3_encode.wgsl does, by addition. A quad is one word.

import package::formats::addition::{Format, added_fp8_word};

alias Quad = u32;

fn encode_quad(values: vec4<f32>) -> Quad {
  return added_fp8_word(values, Format(3u, 121u, 0x43e00000u)); // 448
}
