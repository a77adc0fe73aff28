//! Attention as its definition says: a plain loop, in f64 for the answer and in f32 for what f32 can reach.

use super::{Layout, Problem};

impl Problem {
    /// By a plain loop in f64, and in f32: how far that is off is what a good answer may be off. (out, lse, off)
    pub(super) fn plain(&self, layout: &Layout) -> (Vec<f64>, Vec<f64>, f64, f64) {
        let (mut out, mut lse, mut worst, mut worst_lse) = (Vec::new(), Vec::new(), 0f64, 0f64);
        let mut first_row = 0;
        for (request, &(q_len, kv_len)) in self.lens.iter().enumerate() {
            for row in 0..q_len * self.heads() {
                let (query, head) = (row / self.heads(), row % self.heads());
                let position = kv_len as i64 - q_len as i64 + query as i64;
                let sees = |&key: &usize| {
                    let distance = key as i64 - position;
                    !(self.is_hidden(request, query, key)
                        || self.causal && distance > 0
                        || self.window_left.is_some_and(|keys| -distance > i64::from(keys)))
                };
                let q = &layout.q[((first_row + query) * self.heads() + head) * self.head_dim..][..self.head_dim];
                let keys: Vec<_> = (0..kv_len)
                    .filter(sees)
                    .map(|key| {
                        let row = |dim| self.row(request, key, head / self.group, dim);
                        Key {
                            position: key as i64,
                            k_scale: self.token_scale(0, request, key, head / self.group),
                            v_scale: self.token_scale(1, request, key, head / self.group),
                            k: &layout.k[row(self.head_dim)..][..self.head_dim],
                            v: &layout.v[row(self.head_dim_v)..][..self.head_dim_v],
                        }
                    })
                    .collect();
                let (exact, exact_lse) = self.row_f64(q, position, &keys, head);
                let (rough, rough_lse) = self.row_f32(q, position, &keys, head);
                worst = exact.iter().zip(&rough).fold(worst, |worst, (x, y)| worst.max((x - f64::from(*y)).abs()));
                if exact_lse.is_finite() {
                    worst_lse = worst_lse.max((exact_lse - f64::from(rough_lse)).abs());
                }
                out.extend(exact);
                lse.push(exact_lse);
            }
            first_row += q_len;
        }
        (out, lse, worst, worst_lse)
    }

    fn row_f64(&self, q: &[f32], position: i64, keys: &[Key], head: usize) -> (Vec<f64>, f64) {
        let [scale, out_scale, slope, sink] = self.head(head).map(f64::from);
        let q = self.rotated_f64(q, position);
        let logit = |key: &Key| {
            let k = self.rotated_f64(key.k, key.position);
            let dot: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
            let x = dot * scale * f64::from(key.k_scale) + slope * (key.position - position) as f64;
            self.soft_cap.map(f64::from).map_or(x, |cap| cap * (x / cap).tanh())
        };
        let logits: Vec<_> = keys.iter().map(logit).collect();
        let max = logits.iter().copied().fold(sink, f64::max);
        let mut out = vec![0.0; self.head_dim_v];
        if max == f64::NEG_INFINITY {
            return (out, max);
        }
        let sum = logits.iter().map(|s| (s - max).exp()).sum::<f64>() + (sink - max).exp();
        for (s, key) in logits.iter().zip(keys) {
            let p = (s - max).exp() / sum * out_scale * f64::from(key.v_scale);
            out.iter_mut().zip(key.v).for_each(|(o, &v)| *o += p * f64::from(v));
        }
        (out, (max / std::f64::consts::LN_2 + sum.log2()) * self.lse_scale)
    }

    fn row_f32(&self, q: &[f32], position: i64, keys: &[Key], head: usize) -> (Vec<f32>, f32) {
        let [scale, out_scale, slope, sink] = self.head(head);
        let q = self.rotated_f32(q, position);
        let logit = |key: &Key| {
            let k = self.rotated_f32(key.k, key.position);
            let dot: f32 = q.iter().zip(k).map(|(q, k)| q * k).sum();
            let x = dot * scale * key.k_scale + slope * (key.position - position) as f32;
            self.soft_cap.map_or(x, |cap| cap * (x / cap).tanh())
        };
        let logits: Vec<_> = keys.iter().map(logit).collect();
        let max = logits.iter().copied().fold(sink, f32::max);
        let mut out = vec![0.0; self.head_dim_v];
        if max == f32::NEG_INFINITY {
            return (out, max);
        }
        let sum = logits.iter().map(|s| (s - max).exp()).sum::<f32>() + (sink - max).exp();
        for (s, key) in logits.iter().zip(keys) {
            out.iter_mut().zip(key.v).for_each(|(o, v)| *o += (s - max).exp() * key.v_scale * v);
        }
        let lse = (max * std::f32::consts::LOG2_E + sum.log2()) * self.lse_scale as f32;
        (out.iter().map(|o| o / sum * out_scale).collect(), lse)
    }

    /// Cosine and sine of each pair of dimensions.
    fn turns(&self, position: i64) -> Vec<(f64, f64)> {
        let (scale, theta) = self.rope.unwrap();
        let turn = |i| {
            let angle = position as f64 * theta.powf(-2.0 * i as f64 / self.head_dim as f64) / scale;
            (angle.cos(), angle.sin())
        };
        (0..self.head_dim / 2).map(turn).collect()
    }

    fn rotated_f64(&self, row: &[f32], position: i64) -> Vec<f64> {
        let mut out: Vec<_> = row.iter().copied().map(f64::from).collect();
        if self.rope.is_some() {
            for (i, (cos, sin)) in self.turns(position).into_iter().enumerate() {
                let (a, b) = (out[i], out[i + self.head_dim / 2]);
                (out[i], out[i + self.head_dim / 2]) = (a * cos - b * sin, a * sin + b * cos);
            }
        }
        out
    }

    /// With the best cosines and sines that f32 has.
    fn rotated_f32(&self, row: &[f32], position: i64) -> Vec<f32> {
        let mut out = row.to_vec();
        if self.rope.is_some() {
            for (i, (cos, sin)) in self.turns(position).into_iter().enumerate() {
                let (cos, sin) = (cos as f32, sin as f32);
                let (a, b) = (out[i], out[i + self.head_dim / 2]);
                (out[i], out[i + self.head_dim / 2]) = (a * cos - b * sin, a * sin + b * cos);
            }
        }
        out
    }
}

/// A key that a query sees.
struct Key<'a> {
    position: i64,
    k_scale: f32,
    v_scale: f32,
    k: &'a [f32],
    v: &'a [f32],
}
