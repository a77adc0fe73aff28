//! One block's elements into another's, through f32: a few thousand at a time, so that the floats stay in the cache.

use super::{Slice, SliceMut, round_to_odd};
use crate::block::Registry;
use crate::dtype::Dtype;
use crate::status::Status;

/// Where elements begin, as JavaScript names it.
#[derive(Clone, Copy)]
pub struct Place {
    pub handle: u32,
    pub offset: u32,
    pub dtype: u32,
}

const CHUNK: usize = 2048;

pub fn convert(blocks: &mut Registry, from: Place, to: Place, count: usize, saturate: bool) -> Result<(), Status> {
    let from_dtype = Dtype::source(from.dtype)?;
    let to_dtype = Dtype::storage(to.dtype)?;
    blocks.lend(to.handle, |blocks, block| {
        let mut to = SliceMut::new(block.bytes_mut(), to.offset, to_dtype)?;
        let bytes = blocks.get(from.handle)?.bytes();
        if count > to.len() {
            return Err(Status::OutOfRange);
        }
        if from_dtype == Dtype::F64 {
            return convert_f64(f64s(bytes, from.offset, count)?, &mut to, saturate);
        }
        convert_slice(Slice::new(bytes, from.offset, from_dtype)?, &mut to, count, saturate)
    })
}

fn convert_slice(from: Slice, to: &mut SliceMut, count: usize, saturate: bool) -> Result<(), Status> {
    if count > from.len() {
        return Err(Status::OutOfRange);
    }
    // f32 on either side needs no stop between.
    match (from, &mut *to) {
        (Slice::F32(values), to) => return to.write(0, &values[..count], saturate),
        (from, SliceMut::F32(values)) => return from.read(0, &mut values[..count]),
        _ => {}
    }
    let mut floats = [0.0; CHUNK];
    for start in (0..count).step_by(CHUNK) {
        let floats = &mut floats[..CHUNK.min(count - start)];
        from.read(start, floats)?;
        to.write(start, floats, saturate)?;
    }
    Ok(())
}

fn f64s(bytes: &[u8], offset: u32, count: usize) -> Result<&[f64], Status> {
    let end = count.checked_mul(8).and_then(|length| length.checked_add(offset as usize)).ok_or(Status::OutOfRange)?;
    let bytes = bytes.get(offset as usize..end).ok_or(Status::OutOfRange)?;
    bytemuck::try_cast_slice(bytes).map_err(|_| Status::Misaligned)
}

fn convert_f64(from: &[f64], to: &mut SliceMut, saturate: bool) -> Result<(), Status> {
    // f32 is the target itself: nearest at once. All others have a second rounding to come.
    let round = match to {
        SliceMut::F32(_) => |x: f64| x as f32,
        _ => round_to_odd,
    };
    let mut floats = [0.0; CHUNK];
    for (i, from) in from.chunks(CHUNK).enumerate() {
        for (to, &x) in floats.iter_mut().zip(from) {
            *to = round(x);
        }
        to.write(i * CHUNK, &floats[..from.len()], saturate)?;
    }
    Ok(())
}
