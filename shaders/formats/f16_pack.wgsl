// Packs float32 that are halves already: one instruction for two. What a device makes of others, or of
// NaN, is its own affair (WGSL lets it choose), and rounding_probe.wgsl tests it with what it is used for.

alias Quad = vec2<u32>;

fn encode_quad(values: vec4<f32>) -> Quad {
  return Quad(pack2x16float(values.xy), pack2x16float(values.zw));
}
