//! A tile of keys and values as rows of f32, each padded with zeros to whole steps of the kernels.

use super::rope::{Rope, Rotations};
use super::scales::Scales;
use super::{Inputs, KEYS, Request};
use crate::codec::Slice;
use crate::descriptor::{Cache, Descriptor};
use crate::simd::Lanes;
use crate::status::Status;

/// The kernels take this many floats of a row at a time.
pub const STEP: usize = 16;

/// The same value everywhere, or a status when there is no memory for it.
pub fn filled<T: Copy>(rows: usize, columns: usize, value: T) -> Result<Vec<T>, Status> {
    let count = rows.checked_mul(columns).ok_or(Status::OutOfMemory)?;
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| Status::OutOfMemory)?;
    values.resize(count, value);
    Ok(values)
}

pub fn zeros(rows: usize, columns: usize) -> Result<Vec<f32>, Status> {
    filled(rows, columns, 0.0)
}

/// A head dimension with its padding.
pub fn padded(dim: usize) -> Result<usize, Status> {
    dim.checked_next_multiple_of(STEP).ok_or(Status::OutOfMemory)
}

/// Rows of f32 at a constant distance: in place in the cache where they can be, else made in a scratch.
#[derive(Clone, Copy)]
pub struct KeyRows<'a> {
    pub floats: &'a [Lanes],
    /// In vectors, as `width`.
    pub stride: usize,
    pub width: usize,
    /// In the cache, and so perhaps not yet near the processor.
    cold: bool,
}

/// What a tile of keys is: its rows of k and v, and what they are multiplied with, if tokens have scales.
#[derive(Clone, Copy)]
pub struct LoadedKeys<'a> {
    pub count: usize,
    pub k: KeyRows<'a>,
    pub v: KeyRows<'a>,
    pub scales: Option<&'a Scales>,
}

/// Where the rows of a tile are made that cannot be used in place.
pub struct KeyTile {
    k: Vec<f32>,
    v: Vec<f32>,
    rotations: Option<Rotations>,
    scales: Scales,
}

/// The keys of a tile, in the cache.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    pub inputs: &'a Inputs<'a>,
    pub request: Request,
    pub kv_head: usize,
    pub first_key: usize,
    pub count: usize,
    /// Whether only one block of query rows will read it.
    pub read_once: bool,
}

impl KeyTile {
    pub fn new(descriptor: &Descriptor, rope: Option<&Rope>) -> Result<KeyTile, Status> {
        let k = zeros(KEYS, padded(descriptor.head_dim)?)?;
        let v = zeros(KEYS, padded(descriptor.head_dim_v)?)?;
        Ok(KeyTile { k, v, rotations: rope.map(Rope::rotations).transpose()?, scales: Scales::default() })
    }

    pub fn load<'a>(
        &'a mut self,
        descriptor: &Descriptor,
        span: Span<'a>,
        rope: Option<&Rope>,
    ) -> Result<LoadedKeys<'a>, Status> {
        let Descriptor { page_size, head_dim, head_dim_v, .. } = *descriptor;
        let Inputs { k, v, .. } = *span.inputs;
        let k = match (rope, &mut self.rotations) {
            (Some(rope), Some(rotations)) => {
                gather(page_size, &descriptor.k, k, head_dim, span, &mut self.k)?;
                let width = self.k.len() / KEYS;
                rotations.cover(rope, span.first_key as i64, span.count);
                for (i, row) in self.k.chunks_exact_mut(width).take(span.count).enumerate() {
                    rotations.rotate(i, &mut row[..head_dim]);
                }
                KeyRows::gathered(&self.k, span.count)
            }
            _ => rows(page_size, &descriptor.k, k, head_dim, span, &mut self.k)?,
        };
        let v = rows(page_size, &descriptor.v, v, head_dim_v, span, &mut self.v)?;
        let has_scales = self.scales.load(descriptor, &span)?;
        Ok(LoadedKeys { count: span.count, k, v, scales: has_scales.then_some(&self.scales) })
    }
}

/// Where a row of a cache begins, by the address rule.
fn start(cache: &Cache, span: &Span, page: usize, token: usize) -> Result<usize, Status> {
    let number = *span.inputs.page_table.get(page).ok_or(Status::OutOfRange)?;
    let page = u64::from(number) * cache.page_stride;
    Ok((page + token as u64 * cache.token_stride + span.kv_head as u64 * cache.head_stride) as usize)
}

fn rows<'a>(
    page_size: usize,
    cache: &Cache,
    elements: Slice<'a>,
    dim: usize,
    span: Span,
    scratch: &'a mut [f32],
) -> Result<KeyRows<'a>, Status> {
    let page = span.request.first_page + span.first_key / page_size;
    let token = span.first_key % page_size;
    let stride = cache.token_stride as usize;
    let whole_steps = dim.is_multiple_of(STEP) && stride.is_multiple_of(STEP) && stride >= dim;
    // Rows that lie apart compete for the same few lines of the cache: to read them often, gather them first.
    let worth_it = span.read_once || stride == dim;
    if let (Slice::F32(values), true) = (elements, whole_steps && worth_it && token + span.count <= page_size) {
        let start = start(cache, &span, page, token)?;
        let floats = values.get(start..start + (span.count - 1) * stride + dim).ok_or(Status::OutOfRange)?;
        let mut rows = KeyRows { floats: floats.as_chunks().0, stride: stride / 4, width: dim / 4, cold: true };
        if stride != dim {
            // Values in between would break the rhythm of the keys.
            rows.touch();
        }
        return Ok(rows);
    }
    gather(page_size, cache, elements, dim, span, scratch)?;
    Ok(KeyRows::gathered(scratch, span.count))
}

/// Makes the rows of a tile in a scratch.
fn gather(
    page_size: usize,
    cache: &Cache,
    elements: Slice,
    dim: usize,
    span: Span,
    scratch: &mut [f32],
) -> Result<(), Status> {
    let mut page = span.request.first_page + span.first_key / page_size;
    let mut token = span.first_key % page_size;
    let width = scratch.len() / KEYS;
    for to in scratch.chunks_exact_mut(width).take(span.count) {
        elements.read(start(cache, &span, page, token)?, &mut to[..dim])?;
        token += 1;
        if token == page_size {
            (page, token) = (page + 1, 0);
        }
    }
    Ok(())
}

impl<'a> KeyRows<'a> {
    /// The first `count` rows of a scratch for KEYS rows.
    fn gathered(scratch: &'a [f32], count: usize) -> KeyRows<'a> {
        let width = scratch.len() / KEYS;
        let floats = scratch[..count * width].as_chunks().0;
        KeyRows { floats, stride: width / 4, width: width / 4, cold: false }
    }

    pub fn row(&self, key: usize) -> &'a [Lanes] {
        self.floats.get(key * self.stride..).and_then(|rows| rows.get(..self.width)).unwrap_or_default()
    }

    /// Whether all of a row is finite.
    pub fn is_finite(&self, key: usize) -> bool {
        // Without a branch, which LLVM makes vectors of. The shift drops the sign.
        let most = self.row(key).as_flattened().iter().fold(0, |most, value| (value.to_bits() << 1).max(most));
        most < f32::INFINITY.to_bits() << 1
    }

    /// The rows with 0 in place of what is not finite, in a scratch that has room for them.
    pub fn finite_part<'b>(&self, scratch: &'b mut [f32]) -> KeyRows<'b> {
        for (key, to) in scratch.chunks_exact_mut((self.width * 4).max(1)).enumerate() {
            for (to, &from) in to.iter_mut().zip(self.row(key).as_flattened()) {
                *to = if from.is_finite() { from } else { 0.0 };
            }
        }
        KeyRows { floats: scratch.as_chunks().0, stride: self.width, width: self.width, cold: false }
    }

    /// Without the first `count` rows.
    pub fn skip(self, count: usize) -> KeyRows<'a> {
        if count == 0 {
            return self;
        }
        KeyRows { floats: self.floats.get(count * self.stride..).unwrap_or_default(), ..self }
    }

    /// Reads a float of every cache line, if nothing has yet, so that the misses of a tile overlap each other: the
    /// kernels compute for too long between two lines for that, and WebAssembly has no prefetch.
    #[inline(never)]
    pub fn touch(&mut self) {
        if !std::mem::take(&mut self.cold) {
            return;
        }
        let mut bits = 0;
        for row in self.floats.chunks(self.stride.max(1)) {
            for line in row.get(..self.width).unwrap_or(row).iter().step_by(4) {
                bits |= line[0].to_bits();
            }
        }
        std::hint::black_box(bits);
    }
}
