//! The few functions of f64 that are needed beyond the standard library's log2. The library's own are exact to the last
//! bit over all numbers, for which their tables would make the module half as large again.

use std::f64::consts::{LN_2, TAU};

/// 1/n! for n up to 17, beyond which the series below have nothing to add to f64.
const FACTORS: [f64; 18] = {
    let mut factors = [1.0; 18];
    let mut n = 1;
    while n < factors.len() {
        factors[n] = factors[n - 1] / n as f64;
        n += 1;
    }
    factors
};

/// 2 to the x: exact for integers, 0 below the normal numbers, NaN for NaN.
pub fn exp2(x: f64) -> f64 {
    if x < -1022.0 {
        return 0.0;
    }
    // Where 2^n is infinite, so is the result.
    let bounded = x.min(1024.0);
    let n = bounded.round_ties_even();
    let y = (bounded - n) * LN_2;
    let series = FACTORS.iter().rev().fold(0.0, |sum, factor| sum * y + factor);
    if x.is_nan() { x } else { series * f64::from_bits(((n as i64 + 1023) as u64) << 52) }
}

/// Cosine and sine of an angle given in turns, whose whole ones are dropped exactly.
pub fn cos_sin_of_turns(angle: f64) -> [f64; 2] {
    let quarters = (angle * 4.0).round_ties_even();
    let x = (angle - quarters / 4.0) * TAU;
    let [mut even, mut odd] = [0.0; 2];
    for pair in FACTORS.as_chunks::<2>().0.iter().rev() {
        (even, odd) = (pair[0] - even * x * x, pair[1] - odd * x * x);
    }
    let (cos, sin) = (even, odd * x);
    match quarters as i64 & 3 {
        0 => [cos, sin],
        1 => [-sin, cos],
        2 => [-cos, -sin],
        _ => [sin, -cos],
    }
}
