//! Merging attention states: outputs over parts of the keys, and the lse of each, into the output over all.
//!
//! ```text
//! out = Σ w_i v_i / Σ w_i,  lse = max s + log2 Σ w_i,  w_i = 2^(s_i − max s)
//! ```
//!
//! Weights are made in f64, and sums of outputs kept in f32. A state of lse −∞ holds nothing, and its v is not read;
//! one state alone is passed on as it is, to the bit.

pub mod descriptor;
mod weights;

use crate::block::{Location, Registry};
use crate::codec::{Slice, SliceMut};
use crate::status::Status;

use descriptor::Descriptor;
use weights::Total;

/// Elements that are summed at a time: they stay in the cache, whatever the head dimension.
const CHUNK: usize = 256;

/// One source of states.
#[derive(Clone, Copy)]
struct Source<'a> {
    v: Slice<'a>,
    s: &'a [f32],
}

/// What a call reads.
struct Inputs<'a> {
    sources: [Source<'a>; 2],
    rows: &'a [[u32; 4]],
}

/// What it writes.
struct Outputs<'a> {
    out: SliceMut<'a>,
    lse: &'a mut [f32],
}

/// Does what the descriptor in block `handle` says.
pub fn run(blocks: &mut Registry, handle: u32) -> Result<(), Status> {
    let descriptor = Descriptor::read(blocks.values(Location { handle, offset: 0 })?)?;
    let (out, lse) = (descriptor.out, descriptor.lse);
    blocks.lend(out.handle, |blocks, block| {
        let out = SliceMut::new(block.bytes_mut(), out.offset, descriptor.out_dtype)?;
        blocks.lend(lse.handle, |blocks, block| {
            let outputs = Outputs { out, lse: block.values_mut(lse.offset)? };
            merge(&descriptor, inputs(blocks, &descriptor)?, outputs)
        })
    })
}

fn inputs<'a>(blocks: &'a Registry, descriptor: &Descriptor) -> Result<Inputs<'a>, Status> {
    let source = |at: descriptor::Source| {
        let v = Slice::new(blocks.get(at.v.handle)?.bytes(), at.v.offset, descriptor.v_dtype)?;
        Ok::<_, Status>(Source { v, s: blocks.values(at.s)? })
    };
    let [a, b] = descriptor.sources;
    let rows: &[[u32; 4]] = blocks.values(descriptor.rows)?;
    let rows = rows.get(..descriptor.num_rows).ok_or(Status::OutOfRange)?;
    Ok(Inputs { sources: [source(a)?, source(b)?], rows })
}

/// That every row that will be touched lies in its block.
fn check(descriptor: &Descriptor, inputs: &Inputs, outputs: &Outputs) -> Result<(), Status> {
    let within = |rows: u64, values: usize, elements: usize| {
        let heads = rows.saturating_mul(descriptor.num_heads as u64);
        let fits = heads <= values as u64 && heads.saturating_mul(descriptor.head_dim as u64) <= elements as u64;
        if fits { Ok(()) } else { Err(Status::OutOfRange) }
    };
    within(descriptor.num_rows as u64, outputs.lse.len(), outputs.out.len())?;
    for &[a, a_count, b, b_count] in inputs.rows {
        for (source, first, count) in [(&inputs.sources[0], a, a_count), (&inputs.sources[1], b, b_count)] {
            if count > 0 {
                within(u64::from(first) + u64::from(count), source.s.len(), source.v.len())?;
            }
        }
    }
    Ok(())
}

fn merge(descriptor: &Descriptor, inputs: Inputs, mut outputs: Outputs) -> Result<(), Status> {
    check(descriptor, &inputs, &outputs)?;
    let heads = descriptor.num_heads;
    let [a, b] = inputs.sources;
    for (row, &[a_first, a_count, b_first, b_count]) in inputs.rows.iter().enumerate() {
        for head in 0..heads {
            // Places in a source's s, which times head_dim are those in its v.
            let places = |first: u32, count: u32| {
                let first = first as usize;
                (first..first + count as usize).map(move |row| row * heads + head)
            };
            let of_a = places(a_first, a_count).map(|place| (a, place));
            let states = of_a.chain(places(b_first, b_count).map(|place| (b, place)));
            merge_one(descriptor, states, &mut outputs, row * heads + head)?;
        }
    }
    Ok(())
}

/// Merges the states of one row and head into that at `place`.
fn merge_one<'a>(
    descriptor: &Descriptor,
    mut states: impl Iterator<Item = (Source<'a>, usize)> + Clone,
    outputs: &mut Outputs,
    place: usize,
) -> Result<(), Status> {
    let dim = descriptor.head_dim;
    let weights = match Total::of(states.clone().map(|(source, place)| source.s[place])) {
        Total::Many(weights) => Some(weights),
        Total::Nothing => None,
        Total::One(only) => {
            let (source, from) = states.nth(only).ok_or(Status::OutOfRange)?;
            outputs.lse[place] = source.s[from];
            if descriptor.v_dtype == descriptor.out_dtype {
                return outputs.out.copy(place * dim, &source.v, from * dim, dim);
            }
            return convert(&source.v, from * dim, &mut outputs.out, place * dim, dim);
        }
    };
    outputs.lse[place] = weights.map_or(f32::NEG_INFINITY, |weights| weights.lse());
    for start in (0..dim).step_by(CHUNK) {
        let count = CHUNK.min(dim - start);
        let (mut sum, mut values) = ([0.0; CHUNK], [0.0; CHUNK]);
        if let Some(weights) = weights {
            for (source, place) in states.clone() {
                let weight = weights.of_state(source.s[place]);
                if weight == 0.0 {
                    continue;
                }
                source.v.read(place * dim + start, &mut values[..count])?;
                for (sum, value) in sum.iter_mut().zip(&values) {
                    *sum += weight * value;
                }
            }
        }
        outputs.out.write(place * dim + start, &sum[..count], true)?;
    }
    Ok(())
}

/// A state's output into another dtype.
fn convert(from: &Slice, from_start: usize, to: &mut SliceMut, to_start: usize, count: usize) -> Result<(), Status> {
    let mut values = [0.0; CHUNK];
    for start in (0..count).step_by(CHUNK) {
        let values = &mut values[..CHUNK.min(count - start)];
        from.read(from_start + start, values)?;
        to.write(to_start + start, values, true)?;
    }
    Ok(())
}
