//! Slices of any storage dtype, read and written as f32.

use std::ops::Range;

use super::{narrow, widen};
use crate::dtype::Dtype;
use crate::status::Status;

/// Elements to read.
#[derive(Clone, Copy)]
pub enum Slice<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
    E4m3(&'a [u8]),
    E5m2(&'a [u8]),
}

/// Elements to write.
pub enum SliceMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [u16]),
    Bf16(&'a mut [u16]),
    E4m3(&'a mut [u8]),
    E5m2(&'a mut [u8]),
}

/// Applies a function of N elements to slices of one length. The last N are done together, if need be a second time,
/// so that `each`, which is long and inlined, has one call.
#[inline(always)]
fn map_slice<T: Copy + Default, U: Copy + Default, const N: usize>(
    from: &[T],
    to: &mut [U],
    each: impl Fn(&[T; N]) -> [U; N],
) {
    let (mut few_from, mut few_to) = ([T::default(); N], [U::default(); N]);
    let (source, target): (&[T], &mut [U]) = if from.len() < N {
        few_from[..from.len()].copy_from_slice(from);
        (&few_from, &mut few_to)
    } else {
        (from, &mut *to)
    };
    let last = source.len() - N;
    let mut start = 0;
    while let (Some(source), Some(target)) = (
        source.get(start..).and_then(|rest| rest.first_chunk()),
        target.get_mut(start..).and_then(|rest| rest.first_chunk_mut()),
    ) {
        *target = each(source);
        if start == last {
            break;
        }
        start = (start + N).min(last);
    }
    if from.len() < N {
        to.copy_from_slice(&few_to[..from.len()]);
    }
}

impl<'a> Slice<'a> {
    /// All elements of `dtype` that lie in `bytes` from `offset` on.
    pub fn new(bytes: &'a [u8], offset: u32, dtype: Dtype) -> Result<Slice<'a>, Status> {
        let bytes = bytes.get(offset as usize..).ok_or(Status::OutOfRange)?;
        let bytes = &bytes[..bytes.len() / dtype.bytes() * dtype.bytes()];
        let misaligned = |_| Status::Misaligned;
        Ok(match dtype {
            Dtype::F32 => Slice::F32(bytemuck::try_cast_slice(bytes).map_err(misaligned)?),
            Dtype::F16 => Slice::F16(bytemuck::try_cast_slice(bytes).map_err(misaligned)?),
            Dtype::Bf16 => Slice::Bf16(bytemuck::try_cast_slice(bytes).map_err(misaligned)?),
            Dtype::E4m3 => Slice::E4m3(bytes),
            Dtype::E5m2 => Slice::E5m2(bytes),
            Dtype::F64 => return Err(Status::BadDtype),
        })
    }

    pub fn len(&self) -> usize {
        match self {
            Slice::F32(values) => values.len(),
            Slice::F16(codes) | Slice::Bf16(codes) => codes.len(),
            Slice::E4m3(codes) | Slice::E5m2(codes) => codes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements from `start` on, as many as `to` has room for.
    pub fn read(&self, start: usize, to: &mut [f32]) -> Result<(), Status> {
        let range = start..start.checked_add(to.len()).ok_or(Status::OutOfRange)?;
        fn at<T>(slice: &[T], range: Range<usize>) -> Result<&[T], Status> {
            slice.get(range).ok_or(Status::OutOfRange)
        }
        match self {
            Slice::F32(values) => map_slice(at(values, range)?, to, |lanes: &[f32; 16]| *lanes),
            Slice::F16(codes) => map_slice(at(codes, range)?, to, widen::f16()),
            Slice::Bf16(codes) => map_slice(at(codes, range)?, to, widen::bf16()),
            Slice::E4m3(codes) => map_slice(at(codes, range)?, to, widen::e4m3()),
            Slice::E5m2(codes) => map_slice(at(codes, range)?, to, widen::e5m2()),
        }
        Ok(())
    }
}

impl<'a> SliceMut<'a> {
    /// All elements of `dtype` that lie in `bytes` from `offset` on.
    pub fn new(bytes: &'a mut [u8], offset: u32, dtype: Dtype) -> Result<SliceMut<'a>, Status> {
        let bytes = bytes.get_mut(offset as usize..).ok_or(Status::OutOfRange)?;
        let whole = bytes.len() / dtype.bytes() * dtype.bytes();
        let bytes = &mut bytes[..whole];
        let misaligned = |_| Status::Misaligned;
        Ok(match dtype {
            Dtype::F32 => SliceMut::F32(bytemuck::try_cast_slice_mut(bytes).map_err(misaligned)?),
            Dtype::F16 => SliceMut::F16(bytemuck::try_cast_slice_mut(bytes).map_err(misaligned)?),
            Dtype::Bf16 => SliceMut::Bf16(bytemuck::try_cast_slice_mut(bytes).map_err(misaligned)?),
            Dtype::E4m3 => SliceMut::E4m3(bytes),
            Dtype::E5m2 => SliceMut::E5m2(bytes),
            Dtype::F64 => return Err(Status::BadDtype),
        })
    }

    pub fn len(&self) -> usize {
        match self {
            SliceMut::F32(values) => values.len(),
            SliceMut::F16(codes) | SliceMut::Bf16(codes) => codes.len(),
            SliceMut::E4m3(codes) | SliceMut::E5m2(codes) => codes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies elements of the same dtype, to the bit.
    pub fn copy(&mut self, start: usize, from: &Slice, from_start: usize, count: usize) -> Result<(), Status> {
        fn copy<T: Copy>(to: &mut [T], start: usize, from: &[T], from_start: usize, count: usize) -> Option<()> {
            let from = from.get(from_start..)?.get(..count)?;
            to.get_mut(start..)?.get_mut(..count)?.copy_from_slice(from);
            Some(())
        }
        match (self, from) {
            (SliceMut::F32(to), Slice::F32(from)) => copy(to, start, from, from_start, count),
            (SliceMut::F16(to), Slice::F16(from)) | (SliceMut::Bf16(to), Slice::Bf16(from)) => {
                copy(to, start, from, from_start, count)
            }
            (SliceMut::E4m3(to), Slice::E4m3(from)) | (SliceMut::E5m2(to), Slice::E5m2(from)) => {
                copy(to, start, from, from_start, count)
            }
            _ => return Err(Status::BadDtype),
        }
        .ok_or(Status::OutOfRange)
    }

    /// Puts `from` at `start`, rounding to nearest even; `saturate` says what FP8 does beyond its range.
    pub fn write(&mut self, start: usize, from: &[f32], saturate: bool) -> Result<(), Status> {
        let range = start..start.checked_add(from.len()).ok_or(Status::OutOfRange)?;
        fn at<T>(slice: &mut [T], range: Range<usize>) -> Result<&mut [T], Status> {
            slice.get_mut(range).ok_or(Status::OutOfRange)
        }
        match self {
            SliceMut::F32(values) => at(values, range)?.copy_from_slice(from),
            SliceMut::F16(codes) => map_slice(from, at(codes, range)?, narrow::f16()),
            SliceMut::Bf16(codes) => map_slice(from, at(codes, range)?, narrow::bf16()),
            SliceMut::E4m3(codes) => map_slice(from, at(codes, range)?, narrow::e4m3(saturate)),
            SliceMut::E5m2(codes) => map_slice(from, at(codes, range)?, narrow::e5m2(saturate)),
        }
        Ok(())
    }
}
