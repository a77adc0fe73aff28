//! What changes logits and the softmax, each by itself and together, against the plain loop in f64.

mod common;
mod problem;

use common::{BF16, E4M3, F16, Random};
use kvasir_wasm::descriptor::{FLAG_ROTATED, word};
use kvasir_wasm::status::Status;
use problem::{Problem, assert_near};

/// Decode and prefill, with more queries than keys too.
fn lengths() -> Vec<Vec<(usize, usize)>> {
    vec![vec![(1, 100)], vec![(1, 1), (1, 33), (1, 0)], vec![(40, 70), (3, 64)], vec![(9, 5), (2, 2)]]
}

/// Every option by itself, and all together.
fn options() -> Vec<Problem> {
    let base = Problem { head_dim: 32, head_dim_v: 32, group: 3, ..Problem::default() };
    let all = Problem {
        window_left: Some(20),
        scales_vary: true,
        token_scales: true,
        soft_cap: Some(2.0),
        rope: Some((1.0, 1e4)),
        alibi: Some(0.5),
        sink: Some(-1.0),
        lse_scale: std::f64::consts::LN_2,
        ..base.clone()
    };
    vec![
        Problem { window_left: all.window_left, ..base.clone() },
        Problem { scales_vary: true, ..base.clone() },
        Problem { token_scales: true, ..base.clone() },
        Problem { soft_cap: all.soft_cap, ..base.clone() },
        Problem { rope: all.rope, ..base.clone() },
        Problem { alibi: all.alibi, ..base.clone() },
        Problem { sink: all.sink, ..base.clone() },
        Problem { lse_scale: all.lse_scale, ..base.clone() },
        all,
    ]
}

#[test]
fn each_option_and_all_together() {
    for problem in options() {
        for lens in lengths() {
            for causal in [false, true] {
                assert_near(&Problem { lens: lens.clone(), causal, ..problem.clone() });
            }
        }
    }
}

#[test]
fn options_with_any_group_and_dimension() {
    for problem in options() {
        for group in [1, 2, 4, 5, 7, 16] {
            for (head_dim, head_dim_v) in [(2, 3), (38, 37), (64, 80), (128, 128)] {
                let lens = vec![(1, 45), (13, 50)];
                assert_near(&Problem { lens, group, head_dim, head_dim_v, causal: true, ..problem.clone() });
            }
        }
    }
}

#[test]
fn options_with_every_dtype() {
    for problem in options() {
        for format in [F16, BF16, E4M3] {
            let base = Problem { lens: vec![(1, 45), (13, 50)], causal: true, ..problem.clone() };
            assert_near(&Problem { q_format: Some(format), kv_format: Some(format), ..base.clone() });
            assert_near(&Problem { out_format: Some(format), ..base });
        }
    }
}

#[test]
fn options_give_the_same_bits_in_any_layout() {
    for problem in options() {
        let base = Problem { lens: vec![(3, 70), (40, 41), (1, 33)], causal: true, ..problem };
        let padded = base.run();
        for page_size in [1, 16, 100] {
            for hnd in [false, true] {
                assert_eq!(Problem { page_size: Some(page_size), hnd, ..base.clone() }.run(), padded);
            }
        }
    }
}

#[test]
fn masks_of_every_density() {
    for hides in [1, 2, 3, 40] {
        for lens in lengths().into_iter().chain([vec![(9, 31), (0, 5), (3, 32), (40, 33), (2, 0), (1, 64)]]) {
            for window_left in [None, Some(20)] {
                let hides = Some(hides);
                assert_near(&Problem { lens: lens.clone(), hides, window_left, ..Problem::default() });
            }
        }
    }
    let masked = Problem { hides: Some(2), ..Problem::default() };
    let short = masked.status(|words| words[word::MASK_STARTS + 1] = 4);
    assert_ne!(short, Status::Ok);
    assert_ne!(masked.status(|words| words[word::MASK] = 1000), Status::Ok);
    // The last row of the last request ends where the words do: one word later, they end too early.
    let shifted = masked.status(|words| words[word::MASK + 1] = 4);
    assert_eq!(shifted, Status::OutOfRange);
}

#[test]
fn windows_of_every_width() {
    for window_left in [0, 1, 2, 3, 30, 31, 32, 33, 63, 64, 99, 100, 1000, u32::MAX - 1] {
        for lens in lengths() {
            for causal in [false, true] {
                let window_left = Some(window_left);
                assert_near(&Problem { lens: lens.clone(), causal, window_left, group: 1, ..Problem::default() });
            }
        }
    }
    let wide = Problem { window_left: Some(100), lens: vec![(40, 70)], causal: true, ..Problem::default() };
    assert_eq!(wide.run(), Problem { window_left: None, ..wide.clone() }.run());
}

#[test]
fn keys_before_the_window_are_never_read() {
    for group in [1, 3, 8] {
        // What only the keys 0 to 49 hold, is NaN; key 50 is the first that a query sees.
        let base = Problem { lens: vec![(1, 100)], window_left: Some(49), group, ..Problem::default() };
        for tensor in ["k", "v"] {
            let narrow = Problem { window_left: Some(48), spoil: Some((tensor, f32::NAN)), ..base.clone() };
            assert_near(&Problem { spoil: None, ..narrow.clone() });
            assert_eq!(narrow.run(), Problem { spoil: None, ..narrow.clone() }.run(), "{tensor}");
            let hurt = Problem { spoil: Some((tensor, f32::NAN)), ..base.clone() }.run();
            assert!(hurt.out.iter().any(|x| x.is_nan()));
        }
    }
}

#[test]
fn caps_small_and_large() {
    for soft_cap in [1e-3, 0.5, 1.0, 30.0, 50.0, 1e4, 1e30] {
        for scale_of_q in [1e-3, 1.0, 5.0, 64.0, 1e4, 1e30] {
            let lens = vec![(1, 70), (5, 33)];
            assert_near(&Problem { soft_cap: Some(soft_cap), scale_of_q, lens, ..Problem::default() });
        }
    }
}

#[test]
fn a_cap_is_off_by_a_few_roundings() {
    // With one key the lse is the capped logit. From far below the cap to beyond it.
    for i in 0..2000 {
        let logit = 0.01 * 1.005f32.powi(i);
        let base = Problem { lens: vec![(1, 1)], head_dim: 1, head_dim_v: 1, ..Problem::default() };
        let answer = Problem { constant_qk: Some((logit, 1.0)), soft_cap: Some(30.0), ..base }.run();
        let expected = 30.0 * (f64::from(logit) / 30.0).tanh() * std::f64::consts::LOG2_E;
        let off = f64::from(answer.lse[0]) / expected - 1.0;
        assert!(off.abs() < 4e-7, "{logit}: off by {off:e} of itself");
    }
}

#[test]
fn a_nan_is_not_capped() {
    let base = Problem { soft_cap: Some(5.0), spoil: Some(("k", f32::NAN)), ..Problem::default() };
    assert!(base.run().out.iter().any(|x| x.is_nan()));
}

#[test]
fn rotations_at_any_position() {
    for (scale, theta) in [(1.0, 1e4), (8.0, 5e5), (0.3, 1e6 + 0.1)] {
        for lens in [vec![(3, 5000)], vec![(1, 31), (40, 20)], vec![(70, 70)]] {
            let rope = Some((scale, theta));
            assert_near(&Problem { lens, rope, causal: true, head_dim: 64, group: 2, ..Problem::default() });
        }
    }
}

#[test]
fn rotations_far_out() {
    let base = Problem { num_kv_heads: 1, group: 2, head_dim: 16, head_dim_v: 4, ..Problem::default() };
    let far = Problem { lens: vec![(1, 150_000)], rope: Some((1.0, 1e4)), scale_of_q: 4.0, ..base };
    assert_near(&far);
    assert_near(&Problem { window_left: Some(60), ..far });
}

#[test]
fn slopes_of_any_steepness() {
    for alibi in [-0.25, 1e-3, 1.0, 100.0] {
        for lens in lengths() {
            for causal in [false, true] {
                assert_near(&Problem { lens: lens.clone(), causal, alibi: Some(alibi), ..Problem::default() });
            }
        }
    }
}

#[test]
fn sinks_far_below_and_above() {
    for sink in [-1e30, -200.0, -90.0, -10.0, 0.0, 10.0, 90.0, 200.0, 1e30] {
        for lens in lengths() {
            assert_near(&Problem { lens, causal: true, sink: Some(sink), ..Problem::default() });
        }
    }
}

#[test]
fn a_sink_that_is_not_finite() {
    let base = Problem { lens: vec![(1, 40), (2, 0), (5, 2)], causal: true, ..Problem::default() };
    assert_eq!(Problem { sink: Some(f32::NEG_INFINITY), ..base.clone() }.run(), base.run());
    let all = Problem { sink: Some(f32::INFINITY), ..base.clone() }.run();
    assert!(all.out.iter().all(|&x| x == 0.0) && all.lse.iter().all(|&x| x == f32::INFINITY));
    let nan = Problem { sink: Some(f32::NAN), ..base }.run();
    assert!(nan.lse.iter().all(|x| x.is_nan()) && nan.out[0].is_nan());
}

#[test]
fn rows_without_keys_beside_a_sink() {
    let base = Problem { lens: vec![(2, 0), (34, 1)], causal: true, group: 1, num_kv_heads: 1, ..Problem::default() };
    let result = Problem { sink: Some(3.0), out_scale: -2.0, ..base }.run();
    let expected = (3.0 * std::f64::consts::LOG2_E) as f32;
    assert!(result.lse[..35].iter().all(|&x| x == expected) && result.lse[35] > expected);
    assert!(result.out[..35 * 32].iter().all(|x| x.to_bits() == 0));
}

#[test]
fn a_rotation_of_odd_dimensions_answers_a_status() {
    let base = Problem { head_dim: 33, rope: Some((1.0, 1e4)), ..Problem::default() };
    assert_eq!(base.status(|_| {}), Status::BadDescriptor);
    let even = Problem { head_dim: 34, ..base };
    assert_eq!(even.status(|_| {}), Status::Ok);
    assert_eq!(even.status(|words| words[word::ROPE + 3] = 0xfff0_0000), Status::BadDescriptor);
    assert_eq!(even.status(|words| words[word::FLAGS] = FLAG_ROTATED << 1), Status::BadDescriptor);
}

#[test]
fn random_options() {
    let mut random = Random(11);
    for _ in 0..400 {
        let mut below = |n: u64| random.bits() % n;
        let lens = (0..1 + below(3)).map(|_| (below(20) as usize, below(90) as usize)).collect();
        let on = below(512);
        let option = |bit: u64| on >> bit & 1 == 1;
        assert_near(&Problem {
            lens,
            group: 1 + below(8) as usize,
            num_kv_heads: 1 + below(3) as usize,
            head_dim: 2 * (1 + below(40) as usize),
            head_dim_v: 1 + below(80) as usize,
            causal: option(0),
            window_left: option(1).then(|| below(60) as u32),
            hides: option(7).then(|| 1 + below(9) as usize),
            scales_vary: option(2),
            token_scales: option(8),
            soft_cap: option(3).then(|| 0.5 + below(50) as f32),
            rope: option(4).then(|| (1.0 + below(3) as f64, 1e4)),
            alibi: option(5).then(|| below(100) as f32 / 100.0),
            sink: option(6).then(|| below(20) as f32 - 10.0),
            page_size: (below(2) == 0).then(|| 1 + below(40) as usize),
            hnd: below(2) == 0,
            kv_format: (below(2) == 0).then_some(E4M3),
            ..Problem::default()
        });
    }
}

#[test]
fn scales_of_tokens_lie_within_their_block() {
    let base = Problem { token_scales: true, page_size: Some(4), ..Problem::default() };
    assert_eq!(base.status(|_| {}), Status::Ok);
    for (word, value, expected) in [
        (word::KV_SCALES, 77, Status::UnknownHandle),
        (word::KV_SCALES + 1, 4, Status::OutOfRange),
        (word::KV_SCALES + 2, u32::MAX, Status::OutOfRange),
        (word::KV_SCALES + 3, 17, Status::OutOfRange),
    ] {
        assert_eq!(base.status(|words| words[word] = value), expected, "word {word} = {value}");
    }
}
