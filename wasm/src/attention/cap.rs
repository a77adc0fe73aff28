//! The soft cap of logits: cap·tanh(logit / cap).

use std::hint::black_box;

use super::exp::Exp;
use crate::simd::{F32x4, Lanes, U32x4};

/// Caps a tile's logits.
#[inline(never)]
pub fn apply(cap: f32, logits: &mut [Lanes]) {
    let (tanh, cap) = (Tanh::new(), F32x4::splat(cap));
    for lanes in logits {
        // Divided, not multiplied by 1 / cap, which may be infinite.
        *lanes = (tanh.of(F32x4::load(lanes) / cap) * cap).array();
    }
}

/// The constants of `tanh`.
struct Tanh {
    exp: Exp,
    sign: U32x4,
    one: F32x4,
    minus_two: F32x4,
    /// Below it the polynomial is used, above it the exponential.
    small: F32x4,
    /// (tanh(x) − x) / x³ by powers of x² (Cephes' tanhf).
    coefficients: [F32x4; 5],
}

impl Tanh {
    fn new() -> Tanh {
        let [one, minus_two, small] = black_box([1.0, -2.0, 0.625]).map(F32x4::splat);
        let coefficients =
            black_box([-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_09, -0.005_704_988_7]).map(F32x4::splat);
        let sign = U32x4::splat(black_box(1 << 31));
        Tanh { exp: Exp::new(), sign, one, minus_two, small, coefficients }
    }

    /// To about 1e-7 of itself; NaN for NaN.
    #[inline(always)]
    fn of(&self, x: F32x4) -> F32x4 {
        let sign = x.bits() & self.sign;
        let magnitude = (x.bits() ^ sign).floats();
        let e = self.exp.of(magnitude * self.minus_two);
        let large = (self.one - e) / (self.one + e);
        let square = magnitude * magnitude;
        let [rest @ .., highest] = self.coefficients;
        let slope = rest.into_iter().rev().fold(highest, |sum, c| sum.mul_add(square, c));
        let near = (slope * square).mul_add(magnitude, magnitude);
        // Neither is negative, except for what polynomials make of large values, which is not taken.
        let tanh = magnitude.lt(self.small).select(near.bits(), large.bits());
        (tanh | sign).floats()
    }
}
