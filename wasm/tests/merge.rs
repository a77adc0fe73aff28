//! Merging of states against its definition in f64, and what must hold to the bit.

mod common;
mod states;

use common::{BF16, E4M3, E5M2, F16, Format, Random};
use kvasir_wasm::merge::descriptor::word;
use kvasir_wasm::status::Status;
use states::Problem;

const FORMATS: [Option<Format>; 5] = [None, Some(F16), Some(BF16), Some(E4M3), Some(E5M2)];

#[test]
fn any_number_of_states_from_either_source() {
    let rows = vec![[0, 1, 0, 1], [1, 3, 0, 0], [0, 0, 2, 2], [0, 5, 0, 4], [4, 1, 3, 1], [0, 0, 0, 0], [2, 0, 9, 0]];
    for heads in [1, 3, 8] {
        for dim in [1, 2, 15, 16, 17, 64, 255, 256, 257, 600] {
            Problem::random(dim as u64, heads, dim, [5, 4], rows.clone()).assert_near();
        }
    }
    Problem::random(0, 2, 8, [1000, 1], vec![[0, 1000, 0, 1]]).assert_near();
}

#[test]
fn every_dtype() {
    for format in FORMATS {
        for out_format in FORMATS {
            let base = Problem::random(7, 2, 40, [3, 3], vec![[0, 3, 0, 3], [1, 1, 0, 0], [0, 0, 0, 0]]);
            Problem { format, out_format, ..base }.assert_near();
        }
    }
}

#[test]
fn states_of_nothing_are_not_looked_at() {
    let base = Problem::random(3, 2, 20, [2, 2], vec![[0, 2, 0, 2], [0, 1, 0, 1], [1, 1, 1, 1]]);
    let mut poisoned = base.clone();
    for place in 0..2 {
        // Row 0 of a holds nothing.
        poisoned.s[0][place] = f32::NEG_INFINITY;
        poisoned.v[0][place * 20..][..20].fill(f32::NAN);
    }
    let mut clean = poisoned.clone();
    clean.v[0][..40].fill(0.0);
    clean.assert_near();
    assert_eq!(poisoned.run().out, clean.run().out);
    let mut nothing = poisoned.clone();
    nothing.s.iter_mut().for_each(|s| s.fill(f32::NEG_INFINITY));
    let merged = nothing.run();
    assert!(merged.lse.iter().all(|x| x.to_bits() == 0xff80_0000));
    assert!(merged.out.iter().all(|x| x.to_bits() == 0));
}

#[test]
fn one_state_passes_to_the_bit() {
    for format in FORMATS {
        // The second source is empty, or there is none.
        for rows in [vec![[0, 1, 0, 1], [1, 1, 0, 1]], vec![[0, 1, 0, 0], [1, 1, 5, 0]]] {
            let mut problem = Problem::random(5, 3, 300, [2, 1], rows);
            problem.s[1].fill(f32::NEG_INFINITY);
            problem.s[0][1] = f32::MAX;
            for (value, special) in problem.v[0]
                .iter_mut()
                .step_by(7)
                .zip([f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, f32::MAX].into_iter().cycle())
            {
                *value = special;
            }
            let problem = Problem { format, out_format: format, ..problem };
            let merged = problem.run();
            assert_eq!(merged.bytes, merged.stored[0]);
            assert_eq!(merged.lse, problem.s[0]);
        }
    }
}

#[test]
fn nan_stays_in_its_row_and_head() {
    let base = Problem::random(9, 3, 24, [3, 3], vec![[0, 1, 0, 1], [1, 1, 1, 1], [2, 1, 0, 0]]);
    let clean = base.run();
    // Row 1, head 1; and row 2, head 1, where the state is alone.
    for (row, place) in [(1, 4), (2, 7)] {
        for of_s in [false, true] {
            let mut hurt = base.clone();
            if of_s {
                hurt.s[0][place] = f32::NAN
            } else {
                hurt.v[0][place * 24] = f32::NAN
            }
            let merged = hurt.run();
            for at in 0..9 {
                let (lse, out) = (merged.lse[at], &merged.out[at * 24..][..24]);
                if at == row * 3 + 1 {
                    assert!(out[0].is_nan() && lse.is_nan() == of_s);
                    assert!(out.iter().all(|x| x.is_nan()) == of_s);
                } else {
                    assert_eq!((lse, out), (clean.lse[at], &clean.out[at * 24..][..24]));
                }
            }
        }
    }
}

#[test]
fn infinite_states_make_nan() {
    for other in [3.0, f32::NEG_INFINITY, f32::INFINITY] {
        let mut problem = Problem::random(4, 1, 8, [2, 1], vec![[0, 2, 0, 1], [0, 1, 0, 1]]);
        problem.s = [vec![f32::INFINITY, 3.0], vec![other]];
        let merged = problem.run();
        assert!(merged.lse.iter().chain(&merged.out).all(|x| x.is_nan()), "{other}");
    }
}

#[test]
fn merging_commutes_and_scales() {
    let base = Problem::random(6, 4, 64, [9, 9], (0..9).map(|i| [i, 1, i, 1]).collect());
    let [a, b] = base.v.clone();
    let [s, t] = base.s.clone();
    let (forth, back) = (base.run(), Problem { v: [b, a], s: [t, s], ..base.clone() }.run());
    assert_eq!((&forth.out, &forth.lse), (&back.out, &back.lse));
    let mut larger = base.clone();
    larger.v.iter_mut().flatten().for_each(|x| *x *= 1024.0);
    let larger = larger.run();
    assert!(larger.out.iter().zip(&forth.out).all(|(x, y)| *x == 1024.0 * y));
    // A state with itself: its v, and twice its weight.
    let twice =
        Problem { v: [base.v[0].clone(), base.v[0].clone()], s: [base.s[0].clone(), base.s[0].clone()], ..base };
    let merged = twice.run();
    assert_eq!(merged.out, twice.v[0]);
    assert!(merged.lse.iter().zip(&twice.s[0]).all(|(x, s)| *x == s + 1.0));
}

#[test]
fn states_far_apart() {
    for far in [0.0, 1.0, 24.0, 60.0, 125.0, 126.0, 127.0, 149.0, 150.0, 1e3, 1e4, 1e38] {
        let mut problem = Problem::random(8, 1, 16, [1, 1], vec![[0, 1, 0, 1]]);
        problem.s = [vec![far], vec![-far]];
        problem.assert_near();
    }
}

#[test]
fn malformed_descriptors_answer_a_status() {
    let base = Problem::random(2, 2, 8, [3, 2], vec![[0, 3, 0, 2], [2, 1, 1, 1]]);
    assert_eq!(base.status(|_| {}), Status::Ok);
    let [a, b] = word::SOURCES;
    let cases = [
        (word::NUM_ROWS, 3, Status::OutOfRange),
        (word::NUM_ROWS, u32::MAX, Status::OutOfRange),
        (word::NUM_HEADS, 0, Status::BadDescriptor),
        (word::NUM_HEADS, u32::MAX, Status::OutOfRange),
        (word::HEAD_DIM, 0, Status::BadDescriptor),
        (word::HEAD_DIM, 9, Status::OutOfRange),
        (word::V_DTYPE, 5, Status::BadDtype),
        (word::OUT_DTYPE, 9, Status::BadDtype),
        (a, 99, Status::UnknownHandle),
        (a + 1, 2, Status::Misaligned),
        (a + 1, 4, Status::OutOfRange),
        (a + 3, 4, Status::OutOfRange),
        (b + 1, u32::MAX, Status::OutOfRange),
        (b + 2, 0, Status::UnknownHandle),
        (word::OUT, 0, Status::UnknownHandle),
        (word::OUT + 1, 4, Status::OutOfRange),
        (word::LSE, 0, Status::UnknownHandle),
        (word::LSE + 1, 4, Status::OutOfRange),
        (word::LSE + 1, 1, Status::Misaligned),
        (word::ROWS, 77, Status::UnknownHandle),
        (word::ROWS + 1, 4, Status::OutOfRange),
    ];
    for (word, value, expected) in cases {
        assert_eq!(base.status(|words| words[word] = value), expected, "word {word} = {value}");
    }
    assert_eq!(base.status(|words| words[word::OUT] = words[a]), Status::Aliased);
    assert_eq!(base.status(|words| words[word::LSE] = words[b + 2]), Status::Aliased);
    assert_eq!(base.status(|words| words[word::LSE] = words[word::OUT]), Status::Aliased);
    for row in [[0, 4, 0, 0], [u32::MAX, 1, 0, 0], [0, u32::MAX, 0, 0], [0, 0, 2, 1], [1, 1, u32::MAX, u32::MAX]] {
        assert_eq!(Problem { rows: vec![row], ..base.clone() }.status(|_| {}), Status::OutOfRange, "{row:?}");
    }
}

#[test]
fn random_descriptors_never_panic() {
    let base = Problem::random(2, 2, 8, [3, 2], vec![[0, 3, 0, 2], [2, 1, 1, 1]]);
    let mut random = Random(5);
    for _ in 0..20_000 {
        let word = random.bits() as usize % word::COUNT;
        let wild = random.bits() as u32 >> (random.bits() % 32);
        let near = random.bits() as u32 % 5;
        base.status(|words| {
            words[word] = if near == 0 { wild } else { words[word].wrapping_add(near).wrapping_sub(2) }
        });
    }
}
