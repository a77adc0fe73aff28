//! Attention on the CPU: decode and prefill, any group size and head dimension, every dtype, in one routine.
//!
//! For each request and KV head, the query rows of all heads of the group are packed into one axis (row p is query
//! p / group, head p % group) and cut into tiles; each tile walks the keys, a tile of them at a time, head by head:
//!
//! ```text
//! S = Q Kᵀ              kernels::score, from rows that tiles.rs made f32
//! S = transform(S)      logits.rs: scale and mask
//! P, m, d = softmax(S)  softmax.rs, online
//! O = α O + P V         kernels::weigh
//! ```
//!
//! so that keys and values are converted once for the whole group. Sums are kept in f32.

mod extents;
mod kernels;
mod logits;
mod rows;
mod softmax;
mod tiles;

use crate::block::Registry;
use crate::codec::{Slice, SliceMut};
use crate::descriptor::{Descriptor, Location};
use crate::status::Status;

use logits::Transform;
use rows::{LANES, RowTile};
use tiles::{KeyTile, Span};

/// Keys in a tile, and packed rows in a tile: a tile of K or V, and the Q and O of a tile of rows, are 16 KiB each at
/// 128 dimensions, half of a common L1 cache together.
const KEYS: usize = 32;
const ROWS: usize = 32;
/// From so many keys of a head side by side on, a head is walked through before the next.
const LONG_RUN: u64 = 2 * KEYS as u64;

/// One sequence: its queries are rows of q, its keys are found through the page table.
#[derive(Clone, Copy)]
struct Request {
    q_start: usize,
    q_len: usize,
    kv_len: usize,
    first_page: usize,
}

/// The slices that a call reads.
struct Inputs<'a> {
    q: Slice<'a>,
    k: Slice<'a>,
    v: Slice<'a>,
    requests: &'a [[u32; 4]],
    page_table: &'a [u32],
}

/// What it writes.
struct Outputs<'a> {
    out: SliceMut<'a>,
    lse: Option<&'a mut [f32]>,
}

impl Inputs<'_> {
    fn requests(&self) -> impl Iterator<Item = Request> {
        self.requests.iter().map(|&[q_start, q_len, kv_len, first_page]| Request {
            q_start: q_start as usize,
            q_len: q_len as usize,
            kv_len: kv_len as usize,
            first_page: first_page as usize,
        })
    }
}

/// Does what the descriptor in block `handle` says.
pub fn run(blocks: &mut Registry, handle: u32) -> Result<(), Status> {
    let words = words(blocks, Location { handle, offset: 0 })?;
    let descriptor = Descriptor::read(words)?;
    let (out, lse) = (descriptor.out, descriptor.lse);
    blocks.lend(out.at.handle, |blocks, block| {
        let out = SliceMut::new(block.bytes_mut(), out.at.offset, out.dtype)?;
        match lse {
            None => attend(&descriptor, inputs(blocks, &descriptor)?, Outputs { out, lse: None }),
            Some(lse) => blocks.lend(lse.handle, |blocks, block| {
                let bytes = block.bytes_mut().get_mut(lse.offset as usize..).ok_or(Status::OutOfRange)?;
                let whole = bytes.len() / 4 * 4;
                let lse = bytemuck::try_cast_slice_mut(&mut bytes[..whole]).map_err(|_| Status::Misaligned)?;
                attend(&descriptor, inputs(blocks, &descriptor)?, Outputs { out, lse: Some(lse) })
            }),
        }
    })
}

fn words(blocks: &Registry, at: Location) -> Result<&[u32], Status> {
    let bytes = blocks.get(at.handle)?.bytes().get(at.offset as usize..).ok_or(Status::OutOfRange)?;
    bytemuck::try_cast_slice(&bytes[..bytes.len() / 4 * 4]).map_err(|_| Status::Misaligned)
}

fn inputs<'a>(blocks: &'a Registry, descriptor: &Descriptor) -> Result<Inputs<'a>, Status> {
    let slice = |at: Location, dtype| Slice::new(blocks.get(at.handle)?.bytes(), at.offset, dtype);
    let requests = words(blocks, descriptor.requests)?.as_chunks().0;
    let page_table = words(blocks, descriptor.page_table)?;
    Ok(Inputs {
        q: slice(descriptor.q.at, descriptor.q.dtype)?,
        k: slice(descriptor.k.at, descriptor.k.dtype)?,
        v: slice(descriptor.v.at, descriptor.v.dtype)?,
        requests: requests.get(..descriptor.num_requests).ok_or(Status::OutOfRange)?,
        page_table: page_table.get(..descriptor.page_table_len).ok_or(Status::OutOfRange)?,
    })
}

fn attend(descriptor: &Descriptor, inputs: Inputs, mut outputs: Outputs) -> Result<(), Status> {
    extents::check(descriptor, &inputs, &outputs)?;
    let group = descriptor.group_size();
    let most_rows = inputs.requests().map(|request| request.q_len * group).max().unwrap_or(0).min(ROWS);
    let mut heads = RowTile::for_each_head(descriptor, most_rows)?;
    let mut keys = KeyTile::new(descriptor)?;
    let long_runs = descriptor.k.head_stride >= LONG_RUN * descriptor.k.token_stride;
    let transform = Transform { sm_scale: descriptor.sm_scale };
    for request in inputs.requests() {
        let packed_rows = request.q_len * group;
        for first_row in (0..packed_rows).step_by(ROWS) {
            let count = ROWS.min(packed_rows - first_row);
            for (kv_head, rows) in heads.iter_mut().enumerate() {
                rows.load(descriptor, &inputs.q, &request, kv_head, first_row, count)?;
            }
            let visible = heads[0].visible_keys();
            // Long runs of memory are read fastest. Where the heads of a token (NHD) or of a small page lie side by
            // side, all heads of a tile come before the next keys: else every memory page would be visited once a head.
            let run = if long_runs { usize::MAX } else { KEYS };
            for first in (0..visible).step_by(run) {
                for (kv_head, rows) in heads.iter_mut().enumerate() {
                    for first_key in (first..visible.min(first.saturating_add(run))).step_by(KEYS) {
                        let count = KEYS.min(visible - first_key);
                        let read_once = packed_rows <= LANES;
                        let span = Span { inputs: &inputs, request, kv_head, first_key, count, read_once };
                        let [k, v] = keys.load(descriptor, span)?;
                        rows.attend_to(k, v, first_key, count, &transform);
                    }
                }
            }
            for (kv_head, rows) in heads.iter_mut().enumerate() {
                rows.store(descriptor, &mut outputs, &request, kv_head, first_row)?;
            }
        }
    }
    Ok(())
}
