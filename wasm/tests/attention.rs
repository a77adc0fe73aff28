//! Attention against a plain loop in f64, through the descriptor that JavaScript writes.

mod common;
mod problem;

use common::{BF16, E4M3, E5M2, F16, Random};
use kvasir_wasm::status::Status;
use problem::{Problem, assert_near};

#[test]
fn groups_heads_and_odd_dimensions() {
    for group in (1..=9).chain([12, 16, 32, 64]) {
        for (head_dim, head_dim_v) in [(1, 1), (37, 37), (40, 24), (64, 64), (128, 80)] {
            assert_near(&Problem { group, num_kv_heads: 2, head_dim, head_dim_v, ..Problem::default() });
        }
    }
}

#[test]
fn lengths_around_every_tile_edge() {
    for causal in [false, true] {
        for kv_len in [0, 1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, 100] {
            for q_len in [1, 2, 3, 7, 8, 9, 31, 32, 33] {
                // Causal with more queries than keys: the first rows see nothing.
                let lens = vec![(q_len, kv_len), (1, 5), (0, 3), (q_len, 7)];
                assert_near(&Problem { lens, causal, group: 4, ..Problem::default() });
                assert_near(&Problem { lens: vec![(q_len, kv_len)], causal, group: 3, ..Problem::default() });
            }
        }
    }
}

#[test]
fn every_dtype_of_q_kv_and_out() {
    for format in [None, Some(F16), Some(BF16), Some(E4M3), Some(E5M2)] {
        for head_dim in [16, 33, 64] {
            let lens = vec![(5, 70)];
            let base = Problem { lens, head_dim, head_dim_v: head_dim, causal: true, ..Problem::default() };
            assert_near(&Problem { kv_format: format, ..base.clone() });
            assert_near(&Problem { q_format: format, ..base.clone() });
            assert_near(&Problem { out_format: format, ..base });
        }
    }
}

#[test]
fn pages_and_layouts_give_the_same_bits() {
    for kv_format in [None, Some(E4M3)] {
        for head_dim in [24, 64] {
            for causal in [false, true] {
                let lens = vec![(3, 70), (40, 41), (1, 33)];
                let base = Problem { lens, causal, kv_format, head_dim, head_dim_v: head_dim, ..Problem::default() };
                let padded = base.run();
                for page_size in [1, 5, 16, 32, 100] {
                    for hnd in [false, true] {
                        let paged = Problem { page_size: Some(page_size), hnd, ..base.clone() };
                        assert_eq!(paged.run(), padded, "page size {page_size}, HND {hnd}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_request_does_not_depend_on_its_batch() {
    let one = Problem { lens: vec![(5, 50)], ..Problem::default() };
    let batch = Problem { lens: vec![(5, 50), (9, 64), (1, 1)], ..Problem::default() };
    let (alone, together) = (one.run(), batch.run());
    assert_eq!(alone.lse[..], together.lse[..alone.lse.len()]);
    assert_eq!(alone.out[..], together.out[..alone.out.len()]);
}

#[test]
fn padding_is_never_read() {
    for (kv_format, page_size) in [(None, 16), (None, 1), (Some(F16), 16), (Some(E5M2), 7)] {
        let lens = vec![(1, 33), (4, 17), (2, 0)];
        let clean = Problem { lens, page_size: Some(page_size), kv_format, ..Problem::default() };
        let poisoned = Problem { poison: true, ..clean.clone() };
        assert_eq!(poisoned.run(), clean.run());
    }
}

#[test]
fn a_row_without_keys_is_zero_with_lse_minus_infinity() {
    let result = Problem { lens: vec![(34, 1), (1, 0)], causal: true, ..Problem::default() }.run();
    let heads = result.lse.len() / 35;
    for (row, lse) in result.lse.chunks(heads).enumerate() {
        let sees = row == 33;
        assert!(lse.iter().all(|lse| (lse.to_bits() == 0xff80_0000) != sees), "row {row}");
    }
    let width = result.out.len() / 35;
    assert!(result.out[..33 * width].iter().all(|x| x.to_bits() == 0));
    assert!(result.out[33 * width..34 * width].iter().any(|&x| x != 0.0));
    assert!(result.out[34 * width..].iter().all(|x| x.to_bits() == 0));
}

#[test]
fn nan_stays_in_its_request_and_head() {
    let base = Problem { lens: vec![(6, 40), (6, 40)], num_kv_heads: 2, group: 3, ..Problem::default() };
    let clean = base.run();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // Request 1, KV head 1: query heads 3 to 5.
        for tensor in ["k", "v"] {
            let hurt = Problem { spoil: Some((tensor, value)), ..base.clone() }.run();
            let width = base.head_dim_v;
            let heads = clean.out.chunks(width).zip(hurt.out.chunks(width)).enumerate();
            for (i, (clean, hurt)) in heads {
                let (row, head) = (i / 6, i % 6);
                if row >= 6 && head >= 3 {
                    // An infinite key may have a logit of −∞, which is no weight at all.
                    let may_vanish = tensor == "k" && value.is_infinite();
                    assert!(may_vanish || hurt.iter().any(|x| !x.is_finite()), "{tensor} {value} is hidden");
                } else {
                    assert_eq!(clean, hurt, "{tensor} {value}, row {row}, head {head}");
                }
            }
        }
    }
}

#[test]
fn a_value_reaches_the_rows_that_see_its_key_only() {
    let causal = Problem { lens: vec![(40, 40)], causal: true, ..Problem::default() };
    let masked = Problem { causal: false, hides: Some(3), ..causal.clone() };
    for base in [causal, masked] {
        let clean = base.run();
        for value in [f32::NAN, f32::INFINITY] {
            // Key 20, the last KV head: query heads 2 and 3.
            let hurt = Problem { spoil: Some(("v", value)), ..base.clone() }.run();
            let width = base.head_dim_v;
            for (i, (clean, hurt)) in clean.out.chunks(width).zip(hurt.out.chunks(width)).enumerate() {
                let (query, head) = (i / 4, i % 4);
                let sees = head >= 2 && !base.is_hidden(0, query, 20) && (!base.causal || query >= 20);
                assert_eq!(sees, hurt.iter().any(|x| !x.is_finite()), "query {query}, head {head}");
                if !sees {
                    assert_eq!(clean, hurt, "query {query}, head {head}");
                }
            }
        }
    }
}

#[test]
fn logits_far_from_zero() {
    for scale in [64.0, -64.0, 1e4] {
        assert_near(&Problem { scale_of_q: scale, lens: vec![(2, 100)], ..Problem::default() });
    }
    // All logits equal and large: the mean of v, and log2 of the count above the logit.
    let flat = Problem { lens: vec![(1, 48)], constant_qk: Some((64.0, -64.0)), ..Problem::default() };
    assert_near(&flat);
}

#[test]
fn a_long_sum_stays_exact() {
    let base = Problem { lens: vec![(1, 50_000)], head_dim: 16, head_dim_v: 16, ..Problem::default() };
    assert_near(&Problem { group: 2, num_kv_heads: 1, ..base.clone() });
    let equal = Problem { group: 1, num_kv_heads: 1, constant_qk: Some((0.0, 1.0)), ..base };
    assert_near(&equal);
    assert!((equal.run().lse[0] - 50_000f32.log2()).abs() < 1e-6);
}

#[test]
fn the_output_scale_multiplies_the_output_only() {
    let base = Problem { lens: vec![(3, 20)], ..Problem::default() };
    let (one, four) = (base.run(), Problem { out_scale: 4.0, ..base.clone() }.run());
    assert_eq!(one.lse, four.lse);
    assert!(one.out.iter().zip(&four.out).all(|(x, y)| 4.0 * x == *y));
    assert_eq!(Problem { with_lse: false, ..base }.run().out, one.out);
}

#[test]
fn malformed_descriptors_answer_a_status() {
    let base = Problem { lens: vec![(2, 20), (1, 7)], page_size: Some(4), ..Problem::default() };
    assert_eq!(base.status(|_| {}), Status::Ok);
    use kvasir_wasm::descriptor::{FLAG_CAPPED, FLAG_ROTATED, word::*};
    let nan = 0x7ff8_0000;
    let cases = [
        (NUM_QO_HEADS, 0, Status::BadDescriptor),
        (NUM_QO_HEADS, 5, Status::BadDescriptor),
        (NUM_KV_HEADS, 0, Status::BadDescriptor),
        (HEAD_DIM, 0, Status::BadDescriptor),
        (HEAD_DIM_V, 0, Status::BadDescriptor),
        (PAGE_SIZE, 0, Status::BadDescriptor),
        (FLAGS, 8, Status::BadDescriptor),
        // A cap of 0, and a rotation of scale and theta 0.
        (FLAGS, FLAG_CAPPED, Status::BadDescriptor),
        (FLAGS, FLAG_ROTATED, Status::BadDescriptor),
        (LSE_SCALE + 1, 0, Status::BadDescriptor),
        (LSE_SCALE + 1, nan, Status::BadDescriptor),
        (HEADS, 77, Status::UnknownHandle),
        (HEADS + 1, 2, Status::Misaligned),
        (HEADS + 1, 4, Status::OutOfRange),
        (HEAD_DIM, u32::MAX, Status::OutOfRange),
        (HEAD_DIM_V, 1 << 20, Status::OutOfRange),
        (NUM_REQUESTS, 3, Status::OutOfRange),
        (NUM_REQUESTS, u32::MAX, Status::OutOfRange),
        (Q, 77, Status::UnknownHandle),
        (K, 0, Status::UnknownHandle),
        (Q + 1, 2, Status::Misaligned),
        (V + 1, u32::MAX, Status::OutOfRange),
        (K + 2, 5, Status::BadDtype),
        (OUT + 2, 9, Status::BadDtype),
        (Q + 3, u32::MAX, Status::OutOfRange),
        (OUT + 4, 1 << 30, Status::OutOfRange),
        (K + 3, u32::MAX, Status::OutOfRange),
        (V + 4, u32::MAX, Status::OutOfRange),
        (V + 5, u32::MAX, Status::OutOfRange),
        (LSE + 1, 8, Status::OutOfRange),
        (LSE + 1, 3, Status::Misaligned),
        (PAGE_TABLE_LEN, 1, Status::OutOfRange),
        (PAGE_TABLE_LEN, u32::MAX, Status::OutOfRange),
    ];
    for (word, value, expected) in cases {
        assert_eq!(base.status(|words| words[word] = value), expected, "word {word} = {value}");
    }
    assert_eq!(base.status(|words| words[OUT] = words[Q]), Status::Aliased);
    assert_eq!(base.status(|words| words[LSE] = words[OUT]), Status::Aliased);
}

#[test]
fn random_descriptors_never_panic() {
    let plain = Problem { lens: vec![(2, 20), (1, 7)], page_size: Some(4), ..Problem::default() };
    let (window_left, rope) = (Some(5), Some((1.0, 1e4)));
    let options =
        Problem { window_left, rope, soft_cap: Some(2.0), alibi: Some(0.5), sink: Some(0.0), ..plain.clone() };
    let mut random = Random(3);
    for i in 0..40_000 {
        let base = if i % 2 == 0 { &plain } else { &options };
        // A value that is wild, or near what is right; small enough to end soon if it should be accepted.
        let word = random.bits() as usize % kvasir_wasm::descriptor::word::COUNT;
        let wild = random.bits() as u32 >> (random.bits() % 32);
        let near = random.bits() as u32 % 5;
        base.status(|words| {
            words[word] = if near == 0 { wild } else { words[word].wrapping_add(near).wrapping_sub(2) }
        });
    }
}
