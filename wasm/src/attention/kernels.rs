//! The two products, for a block of one to four interleaved rows and rows of keys: nearly all of the time is here.

use std::array::from_fn;

use super::tiles::KeyRows;
use crate::simd::{F32x4, Lanes};

/// `logits[i]` lane r = row r of q · row i of k. Lanes beyond the rows become 0.
pub fn score(rows: usize, q: &[Lanes], k: KeyRows, logits: &mut [Lanes]) {
    match rows {
        4 => score_rows::<4, 2>(q, k, logits),
        3 => score_rows::<3, 2>(q, k, logits),
        2 => score_rows::<2, 4>(q, k, logits),
        _ => score_rows::<1, 4>(q, k, logits),
    }
}

/// o = alpha·o + Σ p[i]·(row i of v), by row.
pub fn weigh(rows: usize, p: &[Lanes], v: KeyRows, alpha: F32x4, o: &mut [Lanes]) {
    match rows {
        4 => weigh_rows::<4, 2>(p, v, alpha, o),
        3 => weigh_rows::<3, 2>(p, v, alpha, o),
        2 => weigh_rows::<2, 4>(p, v, alpha, o),
        _ => weigh_rows::<1, 4>(p, v, alpha, o),
    }
}

/// `N` keys at a time. Where the last keys are fewer, the first of them stands in for the others.
#[inline(never)]
fn score_rows<const R: usize, const N: usize>(q: &[Lanes], k: KeyRows, logits: &mut [Lanes]) {
    let q = q.as_chunks::<R>().0.get(..k.width).unwrap_or_default();
    for (rows, logits) in k.floats.chunks((N * k.stride).max(1)).zip(logits.chunks_mut(N)) {
        let k: [&[Lanes]; N] = from_fn(|n| {
            let n = if n < logits.len() { n } else { 0 };
            &rows[n * k.stride..][..q.len()]
        });
        let mut sums = [[F32x4::splat(0.0); 4]; N];
        for (i, q) in q.iter().enumerate() {
            let k = k.map(|k| F32x4::load(&k[i]));
            for r in 0..R {
                let q = F32x4::load(&q[r]);
                for n in 0..N {
                    sums[n][r] = q.mul_add(k[n], sums[n][r]);
                }
            }
        }
        for (logit, sums) in logits.iter_mut().zip(sums) {
            *logit = F32x4::sums(sums).array();
        }
    }
}

/// `W` vectors of the output at a time, held in registers over all keys of the tile.
#[inline(never)]
fn weigh_rows<const R: usize, const W: usize>(p: &[Lanes], v: KeyRows, alpha: F32x4, o: &mut [Lanes]) {
    let alpha = alpha.array();
    let (stride, width) = (v.stride / W, v.width / W);
    let v = v.floats.as_chunks::<W>().0;
    let o = o.as_chunks_mut::<R>().0.as_chunks_mut::<W>().0;
    for (column, o) in o.iter_mut().take(width).enumerate() {
        let mut sums = [[F32x4::splat(0.0); R]; W];
        let mut at = column;
        for p in p {
            let Some(v) = v.get(at) else { break };
            at += stride;
            for r in 0..R {
                let p = F32x4::splat(p[r]);
                for w in 0..W {
                    sums[w][r] = p.mul_add(F32x4::load(&v[w]), sums[w][r]);
                }
            }
        }
        for w in 0..W {
            for r in 0..R {
                o[w][r] = F32x4::load(&o[w][r]).mul_add(F32x4::splat(alpha[r]), sums[w][r]).array();
            }
        }
    }
}
