//! Attention on the CPU: decode and prefill, any group size and head dimension, every dtype, in one routine.
//!
//! For each request and KV head, the query rows of all heads of the group are packed into one axis (row p is query
//! p / group, head p % group) and cut into tiles; each tile walks the keys, a tile of them at a time, head by head:
//!
//! ```text
//! S = Q Kᵀ              kernels::score, from rows that tiles.rs made f32 and rope.rs rotated
//! S = transform(S)      logits.rs: scales, ALiBi, soft cap and mask
//! P, m, d = softmax(S)  softmax.rs, online
//! P = scaled P          scales.rs: by the values' scales, if tokens have any
//! O = α O + P V         kernels::weigh
//! ```
//!
//! so that keys and values are converted once for the whole group. Sums are kept in f32. After the last key the sink
//! joins the denominator d, by which O is divided.

mod cap;
mod exp;
mod extents;
mod kernels;
mod logits;
mod rope;
mod rows;
mod scales;
mod softmax;
mod tiles;

use std::ops::Range;

use crate::block::{Location, Registry};
use crate::codec::{Slice, SliceMut};
use crate::descriptor::Descriptor;
use crate::status::Status;

use logits::Transform;
use rope::Rope;
use rows::{LANES, RowTile};
use tiles::{KeyTile, Span};

/// Keys in a tile, and packed rows in a tile: a tile of K or V, and the Q and O of a tile of rows, are 16 KiB each at
/// 128 dimensions, half of a common L1 cache together.
const KEYS: usize = 32;
const ROWS: usize = 32;
/// A table of angles, which has room for KEYS positions, serves the queries of a tile too.
const _: () = assert!(ROWS <= KEYS);
/// From so many keys of a head side by side on, a head is walked through before the next.
const LONG_RUN: u64 = 2 * KEYS as u64;

/// One sequence: its queries are rows of q, its keys are found through the page table.
#[derive(Clone, Copy)]
struct Request {
    q_start: usize,
    q_len: usize,
    kv_len: usize,
    first_page: usize,
    /// The word at which its mask begins, if there is one.
    mask_start: usize,
}

/// What a query head has of its own: the scale of its logits, the scale of its output, its slope of ALiBi, and the
/// logit of its sink (−∞: none).
type Head = [f32; 4];

/// The words of a mask, and where each request's begins.
#[derive(Clone, Copy)]
struct Mask<'a> {
    words: &'a [u32],
    starts: &'a [u32],
}

/// The slices that a call reads.
struct Inputs<'a> {
    q: Slice<'a>,
    k: Slice<'a>,
    v: Slice<'a>,
    heads: &'a [Head],
    requests: &'a [[u32; 4]],
    page_table: &'a [u32],
    mask: Option<Mask<'a>>,
    /// Of all tokens, if they have any.
    kv_scales: Option<&'a [f32]>,
}

/// What it writes.
struct Outputs<'a> {
    out: SliceMut<'a>,
    lse: Option<&'a mut [f32]>,
}

impl Request {
    /// Where a query stands among the keys, counted so that the last query stands at the last key.
    fn position(&self, query: usize) -> i64 {
        self.kv_len as i64 - self.q_len as i64 + query as i64
    }

    /// The keys that a query may see. Empty ranges begin at 0.
    fn visible(&self, descriptor: &Descriptor, query: usize) -> Range<usize> {
        let position = self.position(query);
        let end = if descriptor.causal { (position + 1).max(0) as usize } else { self.kv_len };
        let first = descriptor.window_left.map_or(0, |keys| position - i64::from(keys)).max(0) as usize;
        if first < end { first..end.min(self.kv_len) } else { 0..0 }
    }
}

impl Inputs<'_> {
    fn requests(&self) -> impl Iterator<Item = Request> {
        self.requests.iter().enumerate().map(|(i, &[q_start, q_len, kv_len, first_page])| Request {
            q_start: q_start as usize,
            q_len: q_len as usize,
            kv_len: kv_len as usize,
            first_page: first_page as usize,
            mask_start: self.mask.map_or(0, |mask| mask.starts[i] as usize),
        })
    }
}

/// Does what the descriptor in block `handle` says.
pub fn run(blocks: &mut Registry, handle: u32) -> Result<(), Status> {
    let descriptor = Descriptor::read(blocks.values(Location { handle, offset: 0 })?)?;
    let (out, lse) = (descriptor.out, descriptor.lse);
    blocks.lend(out.at.handle, |blocks, block| {
        let out = SliceMut::new(block.bytes_mut(), out.at.offset, out.dtype)?;
        match lse {
            None => attend(&descriptor, inputs(blocks, &descriptor)?, Outputs { out, lse: None }),
            Some(lse) => blocks.lend(lse.handle, |blocks, block| {
                let lse = Some(block.values_mut(lse.offset)?);
                attend(&descriptor, inputs(blocks, &descriptor)?, Outputs { out, lse })
            }),
        }
    })
}

fn inputs<'a>(blocks: &'a Registry, descriptor: &Descriptor) -> Result<Inputs<'a>, Status> {
    let slice = |at: Location, dtype| Slice::new(blocks.get(at.handle)?.bytes(), at.offset, dtype);
    let requests: &[[u32; 4]] = blocks.values(descriptor.requests)?;
    let page_table: &[u32] = blocks.values(descriptor.page_table)?;
    let mask = descriptor.mask.map(|mask| {
        let starts: &[u32] = blocks.values(mask.starts)?;
        let starts = starts.get(..descriptor.num_requests).ok_or(Status::OutOfRange)?;
        Ok::<_, Status>(Mask { words: blocks.values(mask.words)?, starts })
    });
    Ok(Inputs {
        q: slice(descriptor.q.at, descriptor.q.dtype)?,
        k: slice(descriptor.k.at, descriptor.k.dtype)?,
        v: slice(descriptor.v.at, descriptor.v.dtype)?,
        heads: blocks.values(descriptor.heads)?,
        requests: requests.get(..descriptor.num_requests).ok_or(Status::OutOfRange)?,
        page_table: page_table.get(..descriptor.page_table_len).ok_or(Status::OutOfRange)?,
        mask: mask.transpose()?,
        kv_scales: descriptor.kv_scales.map(|scales| blocks.values(scales.at)).transpose()?,
    })
}

fn attend(descriptor: &Descriptor, inputs: Inputs, mut outputs: Outputs) -> Result<(), Status> {
    extents::check(descriptor, &inputs, &outputs)?;
    let group = descriptor.group_size();
    let most_rows = inputs.requests().map(|request| request.q_len * group).max().unwrap_or(0).min(ROWS);
    let mut heads = RowTile::for_each_head(descriptor, most_rows)?;
    let rope = descriptor.rope.map(|parameters| Rope::new(descriptor, parameters)).transpose()?;
    let rope = rope.as_ref();
    let mut q_rotations = rope.map(Rope::rotations).transpose()?;
    let mut keys = KeyTile::new(descriptor, rope)?;
    // Heads that take turns share the angles of a tile.
    let long_runs = rope.is_none() && descriptor.k.head_stride >= LONG_RUN * descriptor.k.token_stride;
    let alibi = inputs.heads[..descriptor.num_qo_heads].iter().any(|&[_, _, slope, _]| slope != 0.0);
    let transform = Transform { soft_cap: descriptor.soft_cap, alibi, mask: inputs.mask.map(|mask| mask.words) };
    for request in inputs.requests() {
        let packed_rows = request.q_len * group;
        for first_row in (0..packed_rows).step_by(ROWS) {
            let count = ROWS.min(packed_rows - first_row);
            let packed = first_row..first_row + count;
            if let (Some(rope), Some(rotations)) = (rope, &mut q_rotations) {
                let queries = packed.start / group..packed.end.div_ceil(group);
                rotations.cover(rope, request.position(queries.start), queries.len());
            }
            for (kv_head, rows) in heads.iter_mut().enumerate() {
                rows.load(descriptor, &inputs, &request, kv_head, packed.clone(), q_rotations.as_ref())?;
            }
            let visible = heads[0].visible_keys();
            // Long runs of memory are read fastest. Where the heads of a token (NHD) or of a small page lie side by
            // side, all heads of a tile come before the next keys: else every memory page would be visited once a head.
            let run = if long_runs { usize::MAX } else { KEYS };
            for first in visible.clone().step_by(run) {
                for (kv_head, rows) in heads.iter_mut().enumerate() {
                    for first_key in (first..visible.end.min(first.saturating_add(run))).step_by(KEYS) {
                        let count = KEYS.min(visible.end - first_key);
                        let read_once = packed_rows <= LANES;
                        let span = Span { inputs: &inputs, request, kv_head, first_key, count, read_once };
                        let tile = keys.load(descriptor, span, rope)?;
                        rows.attend_to(tile, first_key, &transform)?;
                    }
                }
            }
            for (kv_head, rows) in heads.iter_mut().enumerate() {
                rows.store(descriptor, inputs.heads, &mut outputs, &request, kv_head, first_row)?;
            }
        }
    }
    Ok(())
}
