//! Rotary position encoding: which angles, and a table of their cosines and sines for consecutive positions.
//!
//! Angles are computed in f64, in turns, so that their whole turns can be dropped exactly: at position 131,072 an angle
//! in f32 would be off by a hundredth. A table is made of few sines: those of its first position, turned on by steps
//! that are the same for every table.

use std::f64::consts::TAU;

use super::KEYS;
use super::tiles::filled;
use crate::descriptor::{Descriptor, RopeParameters};
use crate::math::{cos_sin_of_turns, exp2};
use crate::status::Status;

/// Cosine and sine.
type Turn = [f64; 2];

/// The angle a followed by the angle b.
fn add([a_cos, a_sin]: Turn, [b_cos, b_sin]: Turn) -> Turn {
    [a_cos * b_cos - a_sin * b_sin, a_sin * b_cos + a_cos * b_sin]
}

/// What does not depend on the position.
pub struct Rope {
    /// Turns per position, of each pair of dimensions.
    speeds: Vec<f64>,
    /// For each of KEYS positions, the angle of every pair.
    steps: Vec<Turn>,
}

/// Cosines and sines of all pairs at consecutive positions.
pub struct Rotations {
    first: i64,
    count: usize,
    start: Vec<Turn>,
    /// For each position, the cosines of all pairs, then their sines.
    table: Vec<f32>,
}

impl Rope {
    #[inline(never)]
    pub fn new(descriptor: &Descriptor, parameters: RopeParameters) -> Result<Rope, Status> {
        let RopeParameters { scale, theta } = parameters;
        let pairs = descriptor.head_dim / 2;
        let mut speeds = filled(pairs, 1, 0.0)?;
        for (i, speed) in speeds.iter_mut().enumerate() {
            *speed = exp2(-2.0 * i as f64 / descriptor.head_dim as f64 * theta.log2()) / scale / TAU;
        }
        let mut steps = filled(KEYS, pairs, [1.0, 0.0])?;
        for (pair, &speed) in speeds.iter().enumerate() {
            let one = cos_sin_of_turns(speed);
            let mut sum = [1.0, 0.0];
            for step in steps.iter_mut().skip(pair).step_by(pairs) {
                *step = sum;
                sum = add(sum, one);
            }
        }
        Ok(Rope { speeds, steps })
    }

    pub fn rotations(&self) -> Result<Rotations, Status> {
        let pairs = self.speeds.len();
        Ok(Rotations { first: 0, count: 0, start: filled(pairs, 1, [0.0; 2])?, table: filled(KEYS, 2 * pairs, 0.0)? })
    }
}

impl Rotations {
    /// Makes the table hold `count` positions, at most KEYS, from `first` on.
    #[inline(never)]
    pub fn cover(&mut self, rope: &Rope, first: i64, count: usize) {
        if self.first == first && self.count >= count {
            return;
        }
        (self.first, self.count) = (first, count);
        for (start, speed) in self.start.iter_mut().zip(&rope.speeds) {
            *start = cos_sin_of_turns(first as f64 * speed);
        }
        let pairs = rope.speeds.len();
        let rows = self.table.chunks_exact_mut(2 * pairs).zip(rope.steps.chunks_exact(pairs));
        for (row, steps) in rows.take(count) {
            let (cosines, sines) = row.split_at_mut(pairs);
            for (((cos, sin), &start), &step) in cosines.iter_mut().zip(sines).zip(&self.start).zip(steps) {
                let turn = add(start, step);
                (*cos, *sin) = (turn[0] as f32, turn[1] as f32);
            }
        }
    }

    /// Turns a row of q or k at the `index`th position of the table.
    pub fn rotate(&self, index: usize, row: &mut [f32]) {
        let pairs = self.start.len();
        let (cosines, sines) = self.table[index * 2 * pairs..][..2 * pairs].split_at(pairs);
        let (low, high) = row.split_at_mut(pairs);
        for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
