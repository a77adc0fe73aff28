// What the caller adds: these functions are replaced by the caller's text (src/webgpu/variant.ts), after
// linking, so that the compiler speaks of the caller's lines.

import package::params::{params, variant_number};

fn caller_transform(logit: f32, batch: u32, query: u32, key: u32, head: u32) -> f32 {
  return logit + variant_number(0u);
}

fn caller_mask(batch: u32, query: u32, key: u32, head: u32) -> bool {
  return variant_number(0u) == 0.0;
}
