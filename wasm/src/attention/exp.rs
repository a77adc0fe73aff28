//! The exponential function of four lanes.

use std::f32::consts::{LN_2, LOG2_E};
use std::hint::black_box;

use crate::simd::F32x4;

/// The constants of `exp`, hidden from the compilers for the reason that codec/narrow.rs gives.
#[derive(Clone, Copy)]
pub struct Exp {
    log2_e: F32x4,
    lowest: F32x4,
    /// Its unit in the last place is 1: in a sum with it, the low bits are an integer.
    to_integer: F32x4,
    /// 2^f on [−1/2, 1/2], the polynomial of least relative error (2e-9 before its coefficients are rounded).
    coefficients: [F32x4; 7],
}

impl Exp {
    pub fn new() -> Exp {
        let [log2_e, lowest, to_integer] = black_box([LOG2_E, -126.0, 12_582_912.0]).map(F32x4::splat);
        let coefficients =
            black_box([1.0, LN_2, 0.240_226_46, 0.055_503_288, 0.009_618_489, 0.001_339_993, 0.000_153_458])
                .map(F32x4::splat);
        Exp { log2_e, lowest, to_integer, coefficients }
    }

    /// e to the x, for x ≤ 0, to about 1e-7 of itself; 0 below the normal numbers, NaN for NaN.
    #[inline(always)]
    pub fn of(&self, x: F32x4) -> F32x4 {
        let exponent = x * self.log2_e;
        let bounded = exponent.max(self.lowest);
        let n = bounded.round();
        let f = bounded - n;
        let [rest @ .., highest] = self.coefficients;
        let power = rest.into_iter().rev().fold(highest, |sum, c| sum.mul_add(f, c));
        let scaled = power.bits() + (n + self.to_integer).bits().shl::<23>();
        let power = scaled.and_not(exponent.lt(self.lowest));
        // What integer arithmetic makes of a NaN is any number.
        exponent.eq(exponent).select(power, exponent.bits()).floats()
    }
}
