// float32: a quad (4 elements) is 4 words.

alias Quad = vec4<u32>;
const UNIT = 1.0; // what decoded values must be multiplied with

fn decode_quad(words: Quad) -> vec4<f32> {
  return bitcast<vec4<f32>>(words);
}

fn encode_quad(values: vec4<f32>) -> Quad {
  return bitcast<vec4<u32>>(values);
}
