//! The one place where logits are changed between Q Kᵀ and the softmax.

use super::cap;
use super::rows::Block;
use crate::simd::{F32x4, Lanes, U32x4};

pub struct Transform<'a> {
    pub soft_cap: Option<f32>,
    /// Whether any head has a slope.
    pub alibi: bool,
    /// The words of a mask.
    pub mask: Option<&'a [u32]>,
}

impl Transform<'_> {
    /// Scales the logits of a block for the keys from `first_key` on, whose own scales are `k_scales`, if they have any,
    /// and masks those that a row may not see.
    pub fn apply(&self, block: &Block, first_key: usize, k_scales: Option<&[f32]>, logits: &mut [Lanes]) {
        let scale = F32x4::load(&block.scale);
        for lanes in logits.iter_mut() {
            *lanes = (F32x4::load(lanes) * scale).array();
        }
        for (lanes, &scale) in logits.iter_mut().zip(k_scales.unwrap_or_default()) {
            *lanes = (F32x4::load(lanes) * F32x4::splat(scale)).array();
        }
        if self.alibi {
            slant(block, first_key, logits);
        }
        if let Some(cap) = self.soft_cap {
            cap::apply(cap, logits);
        }
        if !block.all_see(first_key..first_key + logits.len()) {
            mask(block, first_key, logits);
        }
        if let Some(words) = self.mask {
            mask_bits(block, words, first_key, logits);
        }
    }
}

/// Adds slope·(key's position − query's position).
#[inline(never)]
fn slant(block: &Block, first_key: usize, logits: &mut [Lanes]) {
    let slope = F32x4::load(&block.slope);
    let first = F32x4::load(&block.position.map(|position| (first_key as i64 - position) as f32));
    for (i, lanes) in logits.iter_mut().enumerate() {
        // Exact, as far as f32 has the integers.
        let distance = first + F32x4::splat(i as f32);
        *lanes = slope.mul_add(distance, F32x4::load(lanes)).array();
    }
}

#[inline(never)]
fn mask(block: &Block, first_key: usize, logits: &mut [Lanes]) {
    let (first, end) = (U32x4::load(&block.first), U32x4::load(&block.end));
    let masked = F32x4::splat(f32::NEG_INFINITY).bits();
    for (key, lanes) in (first_key as u32..).zip(logits) {
        let key = U32x4::splat(key);
        let sees = end.gt(key).and_not(first.gt(key));
        *lanes = sees.select(F32x4::load(lanes).bits(), masked).floats().array();
    }
}

#[inline(never)]
fn mask_bits(block: &Block, words: &[u32], first_key: usize, logits: &mut [Lanes]) {
    for (key, lanes) in (first_key..).zip(logits) {
        for (logit, start) in lanes.iter_mut().zip(block.mask).take(block.rows) {
            if words[start + key / 32] >> (key % 32) & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
