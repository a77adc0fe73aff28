//! The online softmax of four rows, one in each lane.

use std::f64::consts::LOG2_E;

use super::exp::Exp;
use crate::math::exp2;
use crate::simd::{F32x4, Lanes};

/// The largest logit so far, and the sum of exp(logit − largest).
#[derive(Clone, Copy)]
pub struct State {
    max: Lanes,
    sum: Lanes,
}

impl Default for State {
    fn default() -> State {
        State { max: [f32::NEG_INFINITY; 4], sum: [0.0; 4] }
    }
}

impl State {
    /// Turns a tile's logits into weights, and gives the factor for what was summed with the former maximum.
    #[inline(never)]
    pub fn update(&mut self, logits: &mut [Lanes]) -> F32x4 {
        let exp = Exp::new();
        let old = F32x4::load(&self.max);
        let max = logits.iter().fold(old, |max, lanes| max.max(F32x4::load(lanes)));
        // A row that has seen no key yet: −∞ − (−∞) would be NaN.
        let empty = max.eq(F32x4::splat(f32::NEG_INFINITY));
        let base = max.bits().and_not(empty).floats();
        let mut sum = F32x4::splat(0.0);
        for lanes in logits {
            let weight = exp.of(F32x4::load(lanes) - base);
            sum = sum + weight;
            *lanes = weight.array();
        }
        let alpha = exp.of(old - base);
        self.max = max.array();
        self.sum = F32x4::load(&self.sum).mul_add(alpha, sum).array();
        alpha
    }

    /// The end of a row, whose denominator a sink of logit `sink` joins (−∞: there is none).
    pub fn finish(&self, lane: usize, sink: f32) -> Finished {
        let (max, sum) = (f64::from(self.max[lane]), f64::from(self.sum[lane]));
        if sink == f32::NEG_INFINITY {
            let factor = (self.sum[lane] != 0.0).then(|| 1.0 / self.sum[lane]);
            let lse = factor.map_or(f64::NEG_INFINITY, |_| max * LOG2_E + sum.log2());
            return Finished { factor, lse };
        }
        let sink = f64::from(sink);
        // By hand, because f64::max would lose a NaN.
        let base = if max < sink { sink } else { max };
        // ∞ − ∞ would be NaN.
        let weight = |logit: f64| if logit == base { 1.0 } else { exp2((logit - base) * LOG2_E) };
        let keys = weight(max);
        let all = keys * sum + weight(sink);
        Finished { factor: (self.sum[lane] != 0.0).then(|| (keys / all) as f32), lse: base * LOG2_E + all.log2() }
    }
}

/// What becomes of a row at its end.
pub struct Finished {
    /// Makes the output of what was summed; none for a row without keys, whose output is 0.
    pub factor: Option<f32>,
    /// log2 of the sum of exp(logit); −∞ for a row without keys and sink.
    pub lse: f64,
}
