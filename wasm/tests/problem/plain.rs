//! Attention as its definition says: a plain loop, in f64 for the answer and in f32 for what f32 can reach.

use super::{Layout, Problem};

impl Problem {
    /// By a plain loop in f64, and in f32: how far that is off is what a good answer may be off.
    pub(super) fn plain(&self, layout: &Layout) -> (Vec<f64>, Vec<f64>, f64) {
        let (mut out, mut lse, mut worst) = (Vec::new(), Vec::new(), 0f64);
        let mut first_row = 0;
        for (request, &(q_len, kv_len)) in self.lens.iter().enumerate() {
            for row in 0..q_len * self.heads() {
                let (query, head) = (row / self.heads(), row % self.heads());
                let seen = if self.causal { (query + kv_len + 1).saturating_sub(q_len).min(kv_len) } else { kv_len };
                let q = &layout.q[((first_row + query) * self.heads() + head) * self.head_dim..][..self.head_dim];
                let starts = |dim| (0..seen).map(move |key| self.row(request, key, head / self.group, dim));
                let k: Vec<_> = starts(self.head_dim).map(|at| &layout.k[at..][..self.head_dim]).collect();
                let v: Vec<_> = starts(self.head_dim_v).map(|at| &layout.v[at..][..self.head_dim_v]).collect();
                let (exact, exact_lse) = plain_row_f64(q, &k, &v, self.head_dim_v, self.sm_scale());
                let rough = plain_row_f32(q, &k, &v, self.head_dim_v, self.sm_scale());
                worst = exact.iter().zip(&rough).fold(worst, |worst, (x, y)| worst.max((x - f64::from(*y)).abs()));
                out.extend(exact.iter().map(|x| x * f64::from(self.out_scale)));
                lse.push(exact_lse);
            }
            first_row += q_len;
        }
        (out, lse, worst)
    }
}

fn plain_row_f64(q: &[f32], k: &[&[f32]], v: &[&[f32]], dim: usize, scale: f32) -> (Vec<f64>, f64) {
    let dot = |k: &[f32]| q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
    let logits: Vec<f64> = k.iter().map(|k| dot(k) * f64::from(scale)).collect();
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|s| (s - max).exp()).sum();
    let mut out = vec![0.0; dim];
    for (s, v) in logits.iter().zip(v) {
        out.iter_mut().zip(*v).for_each(|(o, &v)| *o += (s - max).exp() / sum * f64::from(v));
    }
    (out, if logits.is_empty() { f64::NEG_INFINITY } else { max / std::f64::consts::LN_2 + sum.log2() })
}

fn plain_row_f32(q: &[f32], k: &[&[f32]], v: &[&[f32]], dim: usize, scale: f32) -> Vec<f32> {
    let logits: Vec<f32> = k.iter().map(|k| q.iter().zip(*k).map(|(q, k)| q * k).sum::<f32>() * scale).collect();
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|s| (s - max).exp()).sum();
    let mut out = vec![0.0; dim];
    for (s, v) in logits.iter().zip(v) {
        out.iter_mut().zip(*v).for_each(|(o, v)| *o += (s - max).exp() * v);
    }
    out.iter().map(|o| o / sum).collect()
}
