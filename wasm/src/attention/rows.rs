//! A tile of packed query rows with its running output and softmax state, in blocks of up to four rows.
//!
//! Within a block the rows are interleaved: vector j of each row in turn, for Q and for O. A vector of four lanes then
//! is one key's logit for the four rows, so that the softmax needs no sums across lanes.

use std::ops::Range;

use super::logits::Transform;
use super::rope::Rotations;
use super::scales::scale_weights;
use super::softmax::{Finished, State};
use super::tiles::{KeyRows, LoadedKeys, padded, zeros};
use super::{Head, Inputs, KEYS, Outputs, ROWS, Request, kernels};
use crate::descriptor::Descriptor;
use crate::simd::{F32x4, Lanes};
use crate::status::Status;

/// Rows in a block: the lanes of a vector.
pub const LANES: usize = 4;

/// What a block needs to know about its rows.
#[derive(Clone, Copy, Default)]
pub struct Block {
    pub rows: usize,
    /// The first key that each row may see, and one past the last; both 0 where it sees none.
    pub first: [u32; LANES],
    pub end: [u32; LANES],
    /// The same of the keys that at least one row sees, and of those that all see.
    seen: [usize; 2],
    seen_by_all: [usize; 2],
    /// Where each row's query stands among the keys.
    pub position: [i64; LANES],
    /// What each row's q·k is multiplied by, and its slope of ALiBi.
    pub scale: Lanes,
    pub slope: Lanes,
    /// The word at which each row's mask begins, if there is one.
    pub mask: [usize; LANES],
    pub state: State,
}

impl Block {
    fn note_visible_keys(&mut self) {
        let rows = self.first.into_iter().zip(self.end).take(self.rows);
        let rows = rows.map(|(first, end)| first as usize..end as usize);
        let seen = hull(rows.clone());
        self.seen = [seen.start, seen.end];
        let seen_by_all = rows.reduce(|all, row| all.start.max(row.start)..all.end.min(row.end)).unwrap_or(0..0);
        self.seen_by_all = [seen_by_all.start, seen_by_all.end];
    }

    /// From the first key that a row sees to the last; all between are seen by at least one.
    pub fn visible_keys(&self) -> Range<usize> {
        self.seen[0]..self.seen[1]
    }

    /// Whether a row sees a key, with a mask's words.
    pub fn sees(&self, lane: usize, key: usize, mask: Option<&[u32]>) -> bool {
        let range = self.first[lane] as usize..self.end[lane] as usize;
        range.contains(&key) && mask.is_none_or(|words| words[self.mask[lane] + key / 32] >> (key % 32) & 1 == 1)
    }

    pub fn all_see(&self, keys: Range<usize>) -> bool {
        self.seen_by_all[0] <= keys.start && keys.end <= self.seen_by_all[1]
    }
}

pub struct RowTile {
    blocks: [Block; ROWS / LANES],
    /// All that is interleaved has room for four rows a block.
    q: Vec<f32>,
    q_width: usize,
    o: Vec<f32>,
    o_width: usize,
    /// One row, on its way in or out.
    row: Vec<f32>,
    /// One block's logits, then its probabilities.
    p: [Lanes; KEYS],
}

/// As kernels::weigh, where a value that is not finite must not reach the rows that do not see its key: their weight
/// is 0, which would not silence it.
#[inline(never)]
fn weigh_apart(
    rows: usize,
    p: &[Lanes],
    v: KeyRows,
    alpha: F32x4,
    o: &mut [Lanes],
    sees: impl Fn(usize, usize) -> bool,
) -> Result<(), Status> {
    let mut finite = zeros(p.len(), v.width * LANES)?;
    kernels::weigh(rows, p, v.finite_part(&mut finite), alpha, o);
    for (key, weights) in p.iter().enumerate() {
        for (o, v) in o.chunks_exact_mut(rows).zip(v.row(key)) {
            for (_, (o, &weight)) in o.iter_mut().zip(weights).enumerate().filter(|(lane, _)| sees(*lane, key)) {
                let odd = o.iter_mut().zip(v).filter(|(_, v)| !v.is_finite());
                odd.for_each(|(o, v)| *o += weight * v);
            }
        }
    }
    Ok(())
}

/// From the first start of some ranges to their last end; empty ones do not count.
fn hull(ranges: impl Iterator<Item = Range<usize>>) -> Range<usize> {
    let ranges = ranges.filter(|range| !range.is_empty());
    ranges.reduce(|all, range| all.start.min(range.start)..all.end.max(range.end)).unwrap_or(0..0)
}

/// Query and head of packed row `row`.
fn unpack(descriptor: &Descriptor, kv_head: usize, row: usize) -> (usize, usize) {
    let group = descriptor.group_size();
    (row / group, kv_head * group + row % group)
}

impl RowTile {
    /// One for each KV head, with room for `rows` rows.
    pub fn for_each_head(descriptor: &Descriptor, rows: usize) -> Result<Vec<RowTile>, Status> {
        let (k, v) = (padded(descriptor.head_dim)?, padded(descriptor.head_dim_v)?);
        let blocks = rows.div_ceil(LANES);
        let mut tiles = Vec::new();
        tiles.try_reserve_exact(descriptor.num_kv_heads).map_err(|_| Status::OutOfMemory)?;
        for _ in 0..descriptor.num_kv_heads {
            let (q, o, row) = (zeros(blocks * LANES, k)?, zeros(blocks * LANES, v)?, zeros(1, k.max(v))?);
            tiles.push(RowTile {
                blocks: Default::default(),
                q,
                q_width: k,
                o,
                o_width: v,
                row,
                p: [[0.0; LANES]; KEYS],
            });
        }
        Ok(tiles)
    }

    /// Takes packed rows, and forgets what was before.
    pub fn load(
        &mut self,
        descriptor: &Descriptor,
        inputs: &Inputs,
        request: &Request,
        kv_head: usize,
        packed: Range<usize>,
        rotations: Option<&Rotations>,
    ) -> Result<(), Status> {
        self.o.fill(0.0);
        self.row.fill(0.0);
        let panels = self.q.chunks_exact_mut(LANES * self.q_width);
        for ((i, block), panel) in self.blocks.iter_mut().enumerate().zip(panels) {
            *block = Block { rows: LANES.min(packed.len().saturating_sub(i * LANES)), ..Block::default() };
            for lane in 0..block.rows {
                let (query, head) = unpack(descriptor, kv_head, packed.start + i * LANES + lane);
                let start = (request.q_start + query) as u64 * descriptor.q.token_stride
                    + head as u64 * descriptor.q.head_stride;
                let row = &mut self.row[..descriptor.head_dim];
                inputs.q.read(start as usize, row)?;
                if let Some(rotations) = rotations {
                    rotations.rotate(query - packed.start / descriptor.group_size(), row);
                }
                let (panel, (row, _)) = (panel.as_chunks_mut::<LANES>().0, self.row.as_chunks::<LANES>());
                for (to, from) in panel.iter_mut().skip(lane).step_by(block.rows).zip(row) {
                    *to = *from;
                }
                [block.scale[lane], _, block.slope[lane], _] = inputs.heads[head];
                let visible = request.visible(descriptor, query);
                (block.first[lane], block.end[lane]) = (visible.start as u32, visible.end as u32);
                block.position[lane] = request.position(query);
                block.mask[lane] = request.mask_start + query * request.kv_len.div_ceil(32);
            }
            block.note_visible_keys();
        }
        Ok(())
    }

    /// From the first key that a row of the tile sees to the last.
    pub fn visible_keys(&self) -> Range<usize> {
        hull(self.blocks.iter().map(Block::visible_keys))
    }

    /// Takes the keys of a tile, whose first is `first_key`, into the output of every row that sees them.
    pub fn attend_to(
        &mut self,
        LoadedKeys { count, mut k, mut v, scales }: LoadedKeys,
        first_key: usize,
        transform: &Transform,
    ) -> Result<(), Status> {
        let q_panels = self.q.chunks_exact(LANES * self.q_width);
        let panels = q_panels.zip(self.o.chunks_exact_mut(LANES * self.o_width));
        let mut all_finite = None;
        for (block, (q, o)) in self.blocks.iter_mut().zip(panels) {
            let seen = block.visible_keys();
            let skipped = seen.start.saturating_sub(first_key);
            let tile = count;
            let count = count.min(seen.end.saturating_sub(first_key)).saturating_sub(skipped);
            if count == 0 {
                continue;
            }
            let p = &mut self.p[..count];
            k.touch();
            kernels::score(block.rows, q.as_chunks().0, k.skip(skipped), p);
            transform.apply(block, first_key + skipped, scales.map(|scales| &scales.k[skipped..]), p);
            let alpha = block.state.update(p);
            if let Some(scales) = scales {
                scale_weights(p, &scales.v[skipped..]);
            }
            v.touch();
            let is_finite = || (0..tile).all(|key| v.is_finite(key));
            let (first, o) = (first_key + skipped, o.as_chunks_mut().0);
            let hides_some = transform.mask.is_some() || !block.all_see(first..first + count);
            if hides_some && !*all_finite.get_or_insert_with(is_finite) {
                let sees = |lane, key| block.sees(lane, first + key, transform.mask);
                weigh_apart(block.rows, p, v.skip(skipped), alpha, o, sees)?;
            } else {
                kernels::weigh(block.rows, p, v.skip(skipped), alpha, o);
            }
        }
        Ok(())
    }

    /// Divides by the softmax's denominator and writes the rows out.
    pub fn store(
        &mut self,
        descriptor: &Descriptor,
        heads: &[Head],
        outputs: &mut Outputs,
        request: &Request,
        kv_head: usize,
        first_row: usize,
    ) -> Result<(), Status> {
        let panels = self.o.chunks_exact(LANES * self.o_width);
        for ((i, block), panel) in self.blocks.iter().enumerate().zip(panels) {
            for lane in 0..block.rows {
                let (query, head) = unpack(descriptor, kv_head, first_row + i * LANES + lane);
                let query = request.q_start + query;
                let [_, out_scale, _, sink] = heads[head];
                let Finished { factor, lse } = block.state.finish(lane, sink);
                match factor {
                    None => self.row.fill(0.0),
                    Some(factor) => {
                        let scale = factor * out_scale;
                        let row = panel.as_chunks::<LANES>().0.iter().skip(lane).step_by(block.rows);
                        for (to, from) in self.row.chunks_exact_mut(LANES).zip(row) {
                            to.copy_from_slice(&from.map(|o| o * scale));
                        }
                    }
                }
                let start = query as u64 * descriptor.out.token_stride + head as u64 * descriptor.out.head_stride;
                outputs.out.write(start as usize, &self.row[..descriptor.head_dim_v], true)?;
                if let Some(lses) = &mut outputs.lse {
                    let at = query * descriptor.num_qo_heads + head;
                    *lses.get_mut(at).ok_or(Status::OutOfRange)? = (lse * descriptor.lse_scale) as f32;
                }
            }
        }
        Ok(())
    }
}
