// Encodes float32 as FP8 e4m3fn: to nearest even, saturating, NaN to 0x7f. A quad is one word.

import package::formats::rounding::fp8_word;

alias Quad = u32;

fn encode_quad(values: vec4<f32>) -> Quad {
  return fp8_word(values, 3u, 121u, 0x7eu);
}
