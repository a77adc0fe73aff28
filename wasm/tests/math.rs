//! The functions of f64 against the standard library's.

mod common;

use common::Random;
use kvasir_wasm::math::{cos_sin_of_turns, exp2};

#[test]
fn powers_of_two() {
    let mut random = Random(1);
    for i in 0..200_000 {
        let x = f64::from(random.unit()) * if i % 2 == 0 { 1000.0 } else { 1.0 };
        assert!((exp2(x) / x.exp2() - 1.0).abs() < 1e-15, "2^{x}");
    }
    for n in -1022..1024 {
        assert_eq!(exp2(f64::from(n)), 2f64.powi(n));
    }
    for (x, power) in
        [(-1022.5, 0.0), (f64::NEG_INFINITY, 0.0), (1024.0, f64::INFINITY), (f64::INFINITY, f64::INFINITY)]
    {
        assert_eq!(exp2(x), power, "2^{x}");
    }
    assert!(exp2(f64::NAN).is_nan());
}

#[test]
fn turns() {
    let mut random = Random(2);
    for i in 0..200_000 {
        let turns = f64::from(random.unit()) * if i % 2 == 0 { 1.0 } else { 32768.0 };
        let (sin, cos) = (turns.fract() * std::f64::consts::TAU).sin_cos();
        let [got_cos, got_sin] = cos_sin_of_turns(turns);
        assert!((got_cos - cos).abs() < 1e-15 && (got_sin - sin).abs() < 1e-15, "{turns} turns");
    }
    for (turns, expected) in [(0.0, [1.0, 0.0]), (0.25, [0.0, 1.0]), (-0.5, [-1.0, 0.0]), (7.75, [0.0, -1.0])] {
        assert_eq!(cos_sin_of_turns(turns), expected);
    }
}
