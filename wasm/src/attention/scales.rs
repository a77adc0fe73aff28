//! Scales of tokens: what the rows of a tile of keys, and of its values, are multiplied with. Logits take those of keys,
//! and weights those of values, which costs less than to multiply the rows.

use super::KEYS;
use super::tiles::Span;
use crate::descriptor::Descriptor;
use crate::simd::{F32x4, Lanes};
use crate::status::Status;

/// Those of one tile.
#[derive(Default)]
pub struct Scales {
    pub k: [f32; KEYS],
    pub v: [f32; KEYS],
}

impl Scales {
    /// Takes those of a span; whether there are any.
    pub fn load(&mut self, descriptor: &Descriptor, span: &Span) -> Result<bool, Status> {
        let (Some(strides), Some(values)) = (descriptor.kv_scales, span.inputs.kv_scales) else {
            return Ok(false);
        };
        let page_size = descriptor.page_size;
        for (i, (k, v)) in self.k.iter_mut().zip(&mut self.v).take(span.count).enumerate() {
            let key = span.first_key + i;
            let page = span.inputs.page_table.get(span.request.first_page + key / page_size);
            let page = u64::from(*page.ok_or(Status::OutOfRange)?) * strides.page_stride;
            let pair = page + span.kv_head as u64 * strides.head_stride + (key % page_size) as u64;
            let own = values.get(2 * pair as usize..).and_then(<[f32]>::first_chunk);
            [*k, *v] = *own.ok_or(Status::OutOfRange)?;
        }
        Ok(true)
    }
}

/// Multiplies the weights of each key with its value's scale. A weight of 0 stays 0: a scale of a key that nobody sees
/// may be anything.
#[inline(never)]
pub fn scale_weights(weights: &mut [Lanes], scales: &[f32]) {
    let zero = F32x4::splat(0.0);
    for (lanes, &scale) in weights.iter_mut().zip(scales) {
        let weight = F32x4::load(lanes);
        *lanes = (weight * F32x4::splat(scale)).bits().and_not(weight.eq(zero)).floats().array();
    }
}
