// Encodes float32 as FP8 e5m2: to nearest even, saturating, NaN to 0x7f. A quad is one word.

import package::formats::rounding::fp8_word;

alias Quad = u32;

fn encode_quad(values: vec4<f32>) -> Quad {
  return fp8_word(values, 2u, 113u, 0x7bu);
}
