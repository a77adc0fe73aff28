//! The one place where logits are changed between Q Kᵀ and the softmax.

use super::rows::Block;
use crate::simd::{F32x4, Lanes, U32x4};

pub struct Transform {
    pub sm_scale: f32,
}

impl Transform {
    /// Scales the logits of a block for the keys from `first_key` on, and masks those that a row may not see.
    pub fn apply(&self, block: &Block, first_key: usize, logits: &mut [Lanes]) {
        let scale = F32x4::splat(self.sm_scale);
        for lanes in logits.iter_mut() {
            *lanes = (F32x4::load(lanes) * scale).array();
        }
        let all_see = block.visible[..block.rows].iter().all(|&keys| keys as usize >= first_key + logits.len());
        if !all_see {
            let visible = U32x4::load(&block.visible);
            let masked = F32x4::splat(f32::NEG_INFINITY).bits();
            for (key, lanes) in (first_key as u32..).zip(logits) {
                let sees = visible.gt(U32x4::splat(key));
                *lanes = sees.select(F32x4::load(lanes).bits(), masked).floats().array();
            }
        }
    }
}
