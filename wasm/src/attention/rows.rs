//! A tile of packed query rows with its running output and softmax state, in blocks of up to four rows.
//!
//! Within a block the rows are interleaved: vector j of each row in turn, for Q and for O. A vector of four lanes then
//! is one key's logit for the four rows, so that the softmax needs no sums across lanes.

use super::logits::Transform;
use super::softmax::State;
use super::tiles::{KeyRows, padded, zeros};
use super::{KEYS, Outputs, ROWS, Request, kernels};
use crate::codec::Slice;
use crate::descriptor::Descriptor;
use crate::simd::Lanes;
use crate::status::Status;

/// Rows in a block: the lanes of a vector.
pub const LANES: usize = 4;

/// What a block needs to know about its rows.
#[derive(Clone, Copy, Default)]
pub struct Block {
    pub rows: usize,
    /// How many keys, from the first on, each row may see.
    pub visible: [u32; LANES],
    pub state: State,
}

impl Block {
    /// Keys that at least one row sees.
    pub fn visible_keys(&self) -> usize {
        self.visible.into_iter().max().unwrap_or(0) as usize
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

    /// Takes `count` packed rows from `first_row` on, and forgets what was before.
    pub fn load(
        &mut self,
        descriptor: &Descriptor,
        q: &Slice,
        request: &Request,
        kv_head: usize,
        first_row: usize,
        count: usize,
    ) -> Result<(), Status> {
        self.o.fill(0.0);
        self.row.fill(0.0);
        self.blocks.fill(Block::default());
        let panels = self.q.chunks_exact_mut(LANES * self.q_width);
        for ((i, block), panel) in self.blocks.iter_mut().enumerate().zip(panels) {
            block.rows = LANES.min(count.saturating_sub(i * LANES));
            for lane in 0..block.rows {
                let (query, head) = unpack(descriptor, kv_head, first_row + i * LANES + lane);
                let start = (request.q_start + query) as u64 * descriptor.q.token_stride
                    + head as u64 * descriptor.q.head_stride;
                q.read(start as usize, &mut self.row[..descriptor.head_dim])?;
                let (panel, (row, _)) = (panel.as_chunks_mut::<LANES>().0, self.row.as_chunks::<LANES>());
                for (to, from) in panel.iter_mut().skip(lane).step_by(block.rows).zip(row) {
                    *to = *from;
                }
                block.visible[lane] = visible(descriptor, request, query);
            }
        }
        Ok(())
    }

    /// Keys that at least one row of the tile sees.
    pub fn visible_keys(&self) -> usize {
        self.blocks.iter().map(Block::visible_keys).max().unwrap_or(0)
    }

    /// Takes the `count` keys of a tile, whose first is `first_key`, into the output of every row that sees them.
    pub fn attend_to(&mut self, mut k: KeyRows, mut v: KeyRows, first_key: usize, count: usize, transform: &Transform) {
        let q_panels = self.q.chunks_exact(LANES * self.q_width);
        let panels = q_panels.zip(self.o.chunks_exact_mut(LANES * self.o_width));
        for (block, (q, o)) in self.blocks.iter_mut().zip(panels) {
            let count = count.min(block.visible_keys().saturating_sub(first_key));
            if count == 0 {
                continue;
            }
            let p = &mut self.p[..count];
            k.touch();
            kernels::score(block.rows, q.as_chunks().0, k, p);
            transform.apply(block, first_key, p);
            let alpha = block.state.update(p);
            v.touch();
            kernels::weigh(block.rows, p, v, alpha, o.as_chunks_mut().0);
        }
    }

    /// Divides by the softmax's denominator and writes the rows out.
    pub fn store(
        &mut self,
        descriptor: &Descriptor,
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
                let scale = block.state.normalizer(lane) * descriptor.out_scale;
                let panel = panel.as_chunks::<LANES>().0;
                for (to, from) in self.row.chunks_exact_mut(LANES).zip(panel.iter().skip(lane).step_by(block.rows)) {
                    to.copy_from_slice(&from.map(|o| o * scale));
                }
                let start = query as u64 * descriptor.out.token_stride + head as u64 * descriptor.out.head_stride;
                outputs.out.write(start as usize, &self.row[..descriptor.head_dim_v], true)?;
                if let Some(lse) = &mut outputs.lse {
                    let at = query * descriptor.num_qo_heads + head;
                    *lse.get_mut(at).ok_or(Status::OutOfRange)? = block.state.lse(lane);
                }
            }
        }
        Ok(())
    }
}

/// How many of a request's keys its query may see: all, or those up to its own place when the last query sees all.
fn visible(descriptor: &Descriptor, request: &Request, query: usize) -> u32 {
    let keys = if descriptor.causal {
        (request.kv_len + query + 1).saturating_sub(request.q_len).min(request.kv_len)
    } else {
        request.kv_len
    };
    keys as u32
}
