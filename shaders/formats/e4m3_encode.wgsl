// Encodes float32 as FP8 e4m3fn: to nearest even, saturating, NaN to 0x7f. A quad is one word.

import package::formats::rounding::fp8_code;

alias Quad = u32;

fn encode(value: f32) -> u32 {
  return fp8_code(bitcast<u32>(value), 3u, 121u, 0x7eu);
}

fn encode_quad(values: vec4<f32>) -> Quad {
  return encode(values.x) | (encode(values.y) << 8u) | (encode(values.z) << 16u) |
    (encode(values.w) << 24u);
}
