//! How much each state of a row and head counts for.

use crate::math::exp2;

/// The states of one row and head, in all that is asked of them: weights 2^(s − base) / sum.
#[derive(Clone, Copy)]
pub struct Weights {
    base: f64,
    sum: f64,
}

/// What the states of a row and head come to.
pub enum Total {
    /// No state holds anything.
    Nothing,
    /// One state, this one in order, is all that counts.
    One(usize),
    Many(Weights),
}

impl Total {
    pub fn of(states: impl Iterator<Item = f32> + Clone) -> Total {
        let mut held = states.clone().enumerate().filter(|&(_, s)| s != f32::NEG_INFINITY);
        match (held.next(), held.next()) {
            (None, _) => Total::Nothing,
            // Neither NaN nor infinity is a state to pass on.
            (Some((only, s)), None) if s < f32::INFINITY => Total::One(only),
            _ => Total::Many(Weights::of(states.map(f64::from))),
        }
    }
}

impl Weights {
    fn of(states: impl Iterator<Item = f64> + Clone) -> Weights {
        // A NaN makes no base, but makes the sum, and with it every weight, NaN.
        let base = states.clone().fold(f64::NEG_INFINITY, |base, s| if base < s { s } else { base });
        // So does an infinity, as of FlashInfer's: infinity − infinity.
        let sum = states.map(|s| exp2(s - base)).sum();
        Weights { base, sum }
    }

    pub fn of_state(&self, s: f32) -> f32 {
        (exp2(f64::from(s) - self.base) / self.sum) as f32
    }

    pub fn lse(&self) -> f32 {
        (self.base + self.sum.log2()) as f32
    }
}
