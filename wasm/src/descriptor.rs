//! What attention is to be done, as a block of 32-bit words that JavaScript writes. Strides count elements.
//!
//! One address rule serves every cache: the row of key `pos` of a request begins at
//! `table[first_page + pos / page_size]·page_stride + (pos % page_size)·token_stride + head·head_stride`,
//! and its `head_dim` elements are contiguous. Padded and ragged caches are paged ones with long pages.

use crate::dtype::Dtype;
use crate::status::Status;

/// Where each word is.
pub mod word {
    pub const NUM_REQUESTS: usize = 0;
    pub const NUM_QO_HEADS: usize = 1;
    pub const NUM_KV_HEADS: usize = 2;
    pub const HEAD_DIM: usize = 3;
    pub const HEAD_DIM_V: usize = 4;
    /// Bit 0: causal.
    pub const FLAGS: usize = 5;
    /// f32; what q·k is multiplied by, q's and k's scales included.
    pub const SM_SCALE: usize = 6;
    /// f32; what the output is multiplied by: v's scale.
    pub const OUT_SCALE: usize = 7;
    pub const PAGE_SIZE: usize = 8;
    /// handle, byte offset, dtype, token_stride, head_stride
    pub const Q: usize = 9;
    /// handle, byte offset, dtype, page_stride, token_stride, head_stride
    pub const K: usize = 14;
    /// As K.
    pub const V: usize = 20;
    /// As Q.
    pub const OUT: usize = 26;
    /// handle (0: not wanted), byte offset; f32 [q rows, num_qo_heads], base 2
    pub const LSE: usize = 31;
    /// handle, byte offset; for each request: q_start, q_len, kv_len, first_page
    pub const REQUESTS: usize = 33;
    /// handle, byte offset; page numbers
    pub const PAGE_TABLE: usize = 35;
    pub const PAGE_TABLE_LEN: usize = 37;
    pub const COUNT: usize = 38;
}

pub const FLAG_CAUSAL: u32 = 1;

/// A place in a block.
#[derive(Clone, Copy, Debug)]
pub struct Location {
    pub handle: u32,
    pub offset: u32,
}

/// q or the output: [rows, heads, dim] by strides.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub at: Location,
    pub dtype: Dtype,
    pub token_stride: u64,
    pub head_stride: u64,
}

/// k or v, by the address rule.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    pub at: Location,
    pub dtype: Dtype,
    pub page_stride: u64,
    pub token_stride: u64,
    pub head_stride: u64,
}

#[derive(Clone, Debug)]
pub struct Descriptor {
    pub num_requests: usize,
    pub num_qo_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub head_dim_v: usize,
    pub causal: bool,
    pub sm_scale: f32,
    pub out_scale: f32,
    pub page_size: usize,
    pub q: Rows,
    pub k: Cache,
    pub v: Cache,
    pub out: Rows,
    pub lse: Option<Location>,
    pub requests: Location,
    pub page_table: Location,
    pub page_table_len: usize,
}

impl Descriptor {
    pub fn read(words: &[u32]) -> Result<Descriptor, Status> {
        let words: &[u32; word::COUNT] = words.first_chunk().ok_or(Status::OutOfRange)?;
        let count = |at: usize| words[at] as usize;
        let location = |at: usize| Location { handle: words[at], offset: words[at + 1] };
        let rows = |at: usize| {
            Ok::<_, Status>(Rows {
                at: location(at),
                dtype: Dtype::storage(words[at + 2])?,
                token_stride: words[at + 3].into(),
                head_stride: words[at + 4].into(),
            })
        };
        let cache = |at: usize| {
            Ok::<_, Status>(Cache {
                at: location(at),
                dtype: Dtype::storage(words[at + 2])?,
                page_stride: words[at + 3].into(),
                token_stride: words[at + 4].into(),
                head_stride: words[at + 5].into(),
            })
        };
        let descriptor = Descriptor {
            num_requests: count(word::NUM_REQUESTS),
            num_qo_heads: count(word::NUM_QO_HEADS),
            num_kv_heads: count(word::NUM_KV_HEADS),
            head_dim: count(word::HEAD_DIM),
            head_dim_v: count(word::HEAD_DIM_V),
            causal: words[word::FLAGS] & FLAG_CAUSAL != 0,
            sm_scale: f32::from_bits(words[word::SM_SCALE]),
            out_scale: f32::from_bits(words[word::OUT_SCALE]),
            page_size: count(word::PAGE_SIZE),
            q: rows(word::Q)?,
            k: cache(word::K)?,
            v: cache(word::V)?,
            out: rows(word::OUT)?,
            lse: Some(location(word::LSE)).filter(|lse| lse.handle != 0),
            requests: location(word::REQUESTS),
            page_table: location(word::PAGE_TABLE),
            page_table_len: count(word::PAGE_TABLE_LEN),
        };
        let sizes = [
            descriptor.num_qo_heads,
            descriptor.num_kv_heads,
            descriptor.head_dim,
            descriptor.head_dim_v,
            descriptor.page_size,
        ];
        let unknown_flags = words[word::FLAGS] & !FLAG_CAUSAL != 0;
        if unknown_flags || sizes.contains(&0) || !descriptor.num_qo_heads.is_multiple_of(descriptor.num_kv_heads) {
            return Err(Status::BadDescriptor);
        }
        Ok(descriptor)
    }

    pub fn group_size(&self) -> usize {
        self.num_qo_heads / self.num_kv_heads
    }
}
