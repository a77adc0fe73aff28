//! A merge: its states and descriptor in blocks, its answer by the crate, and by the definition in f64.

use super::common::{Format, Random};
use kvasir_wasm::block::Registry;
use kvasir_wasm::codec::{Place, convert};
use kvasir_wasm::merge;
use kvasir_wasm::merge::descriptor::word;
use kvasir_wasm::status::Status;

/// States by their s, and rows of the result by which states of a and of b they take.
#[derive(Clone)]
pub struct Problem {
    pub heads: usize,
    pub dim: usize,
    pub v: [Vec<f32>; 2],
    pub s: [Vec<f32>; 2],
    /// First of a, how many, first of b, how many.
    pub rows: Vec<[u32; 4]>,
    pub format: Option<Format>,
    pub out_format: Option<Format>,
}

/// What a merge gives, and the stored bytes of out.
pub struct Merged {
    pub out: Vec<f32>,
    pub bytes: Vec<u8>,
    pub lse: Vec<f32>,
    /// The sources after rounding to their dtype, and as stored.
    pub v: [Vec<f32>; 2],
    pub stored: [Vec<u8>; 2],
}

impl Problem {
    /// `states` of each source, of random v and s.
    pub fn random(seed: u64, heads: usize, dim: usize, states: [usize; 2], rows: Vec<[u32; 4]>) -> Problem {
        let mut random = Random(seed + 1);
        let v = states.map(|n| random.units(n * heads * dim));
        let s = states.map(|n| random.units(n * heads).iter().map(|x| 6.0 * x).collect());
        Problem { heads, dim, v, s, rows, format: None, out_format: None }
    }

    fn layout(&self) -> (Registry, Vec<u32>, [u32; 2]) {
        let mut blocks = Registry::new();
        let dtype = |format: Option<Format>| format.map_or(0, |format| format.dtype);
        let bytes = |format: Option<Format>| format.map_or(4, Format::bytes);
        let mut put = |bytes: &[u8]| {
            let handle = blocks.alloc(bytes.len() as u32);
            blocks.get_mut(handle).unwrap().bytes_mut().copy_from_slice(bytes);
            handle
        };
        let floats = self.v.each_ref().map(|v| put(bytemuck::cast_slice(v)));
        let s = self.s.each_ref().map(|s| put(bytemuck::cast_slice(s)));
        let rows = put(bytemuck::cast_slice(&self.rows));
        let v = [0, 1].map(|i| {
            let handle = blocks.alloc((self.v[i].len() * bytes(self.format)) as u32);
            change(&mut blocks, (floats[i], 0), (handle, dtype(self.format)), self.v[i].len());
            handle
        });
        let states = self.rows.len() * self.heads;
        let out = blocks.alloc((states * self.dim * bytes(self.out_format)) as u32);
        let lse = blocks.alloc((states * 4) as u32);
        let mut words = vec![self.rows.len() as u32, self.heads as u32, self.dim as u32];
        words.extend([dtype(self.format), dtype(self.out_format)]);
        words.extend([v[0], s[0], v[1], s[1], out, lse, rows].iter().flat_map(|&handle| [handle, 0]));
        assert_eq!(words.len(), word::COUNT);
        (blocks, words, v)
    }

    pub fn status(&self, change: impl FnOnce(&mut Vec<u32>)) -> Status {
        let (mut blocks, mut words, _) = self.layout();
        change(&mut words);
        run(&mut blocks, &words).into()
    }

    pub fn run(&self) -> Merged {
        let (mut blocks, words, sources) = self.layout();
        run(&mut blocks, &words).unwrap();
        let bytes = |blocks: &Registry, handle| blocks.get(handle).unwrap().bytes().to_vec();
        let floats = |blocks: &mut Registry, from: (u32, u32), count: usize| {
            let handle = blocks.alloc((4 * count) as u32);
            change(blocks, from, (handle, 0), count);
            floats_of(blocks.get(handle).unwrap().bytes())
        };
        let out = words[word::OUT];
        Merged {
            bytes: bytes(&blocks, out),
            lse: floats_of(&bytes(&blocks, words[word::LSE])),
            stored: sources.map(|handle| bytes(&blocks, handle)),
            v: [0, 1].map(|i| floats(&mut blocks, (sources[i], words[word::V_DTYPE]), self.v[i].len())),
            out: floats(&mut blocks, (out, words[word::OUT_DTYPE]), self.rows.len() * self.heads * self.dim),
        }
    }

    /// (source, place) of the states that a row and head takes.
    fn states(&self, row: usize, head: usize) -> Vec<(usize, usize)> {
        let [a, a_count, b, b_count] = self.rows[row].map(|x| x as usize);
        let a = (a..a + a_count).map(|i| (0, i * self.heads + head));
        a.chain((b..b + b_count).map(|i| (1, i * self.heads + head))).collect()
    }

    /// Within a few roundings of the definition, and one of the output's dtype.
    pub fn assert_near(&self) {
        let merged = self.run();
        let rounding = self.out_format.map_or(0.0, |format| 2f64.powi(-(format.mantissa as i32 + 1)));
        let tiny = if rounding > 0.0 { 2f64.powi(-10) } else { 0.0 };
        for place in 0..self.rows.len() * self.heads {
            let states = self.states(place / self.heads, place % self.heads);
            let s = |&(source, i): &(usize, usize)| f64::from(self.s[source][i]);
            let max = states.iter().map(s).fold(f64::NEG_INFINITY, f64::max);
            let held: Vec<_> = states.into_iter().filter(|state| s(state) != f64::NEG_INFINITY).collect();
            let sum: f64 = held.iter().map(|state| (s(state) - max).exp2()).sum();
            let lse = if held.is_empty() { f64::NEG_INFINITY } else { max + sum.log2() };
            assert!(f64::from(merged.lse[place]) == lse || (f64::from(merged.lse[place]) - lse).abs() < 1e-6);
            for d in 0..self.dim {
                let part = |state: &(usize, usize)| {
                    (s(state) - max).exp2() / sum * f64::from(merged.v[state.0][state.1 * self.dim + d])
                };
                let exact: f64 = held.iter().map(part).sum();
                let got = f64::from(merged.out[place * self.dim + d]);
                let bound = 1e-6 + rounding * exact.abs() + tiny;
                assert!((got - exact).abs() <= bound, "out {place}, {d}: {got} is not {exact}");
            }
        }
    }
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
}

fn change(blocks: &mut Registry, from: (u32, u32), to: (u32, u32), count: usize) {
    let place = |(handle, dtype)| Place { handle, offset: 0, dtype };
    convert(blocks, place(from), place(to), count, false).unwrap();
}

fn run(blocks: &mut Registry, words: &[u32]) -> Result<(), Status> {
    let handle = blocks.alloc((words.len() * 4) as u32);
    blocks.get_mut(handle).unwrap().bytes_mut().copy_from_slice(bytemuck::cast_slice(words));
    merge::run(blocks, handle)
}
