//! What attention is to be done, as a block of 32-bit words that JavaScript writes. Strides count elements.
//!
//! One address rule serves every cache: the row of key `pos` of a request begins at
//! `table[first_page + pos / page_size]·page_stride + (pos % page_size)·token_stride + head·head_stride`,
//! and its `head_dim` elements are contiguous. Padded and ragged caches are paged ones with long pages.

use crate::block::Location;
use crate::dtype::Dtype;
use crate::status::Status;

/// Where each word is.
pub mod word {
    pub const NUM_REQUESTS: usize = 0;
    pub const NUM_QO_HEADS: usize = 1;
    pub const NUM_KV_HEADS: usize = 2;
    pub const HEAD_DIM: usize = 3;
    pub const HEAD_DIM_V: usize = 4;
    /// Bit 0: causal; bit 1: logits are capped; bit 2: q and k are rotated.
    pub const FLAGS: usize = 5;
    /// handle, byte offset; for each query head, as f32: what q·k is multiplied by (q's and k's scales included), what
    /// the output is multiplied by (v's scale), the slope of ALiBi (0: none), and the logit of the sink (−∞: none)
    pub const HEADS: usize = 6;
    pub const PAGE_SIZE: usize = 8;
    /// handle, byte offset, dtype, token_stride, head_stride
    pub const Q: usize = 9;
    /// handle, byte offset, dtype, page_stride, token_stride, head_stride
    pub const K: usize = 14;
    /// As K.
    pub const V: usize = 20;
    /// As Q.
    pub const OUT: usize = 26;
    /// handle (0: not wanted), byte offset; f32 [q rows, num_qo_heads], base 2 times LSE_SCALE
    pub const LSE: usize = 31;
    /// handle, byte offset; for each request: q_start, q_len, kv_len, first_page
    pub const REQUESTS: usize = 33;
    /// handle, byte offset; page numbers
    pub const PAGE_TABLE: usize = 35;
    pub const PAGE_TABLE_LEN: usize = 37;
    /// How many keys before its own a query sees; 2³² − 1: all of them.
    pub const WINDOW_LEFT: usize = 38;
    /// f32; what logits are capped to, if they are.
    pub const SOFT_CAP: usize = 39;
    /// Two f64, the lower word first: scale and theta of the rotation, if there is one. f64, because an error here
    /// grows with the position.
    pub const ROPE: usize = 40;
    /// f64
    pub const LSE_SCALE: usize = 44;
    /// handle (0: none), byte offset; the words of a mask: the row of a request's query begins after ceil(kv_len / 32)
    /// words for each query before it, and bit j % 32 of its word j / 32 says whether it sees key j.
    pub const MASK: usize = 46;
    /// handle, byte offset; for each request: the word at which its mask begins
    pub const MASK_STARTS: usize = 48;
    /// handle (0: none), byte offset, page_stride, head_stride, in pairs of f32: a scale of each key's row and one of its
    /// value's; those of a head's tokens lie side by side.
    pub const KV_SCALES: usize = 50;
    pub const COUNT: usize = 54;
}

pub const FLAG_CAUSAL: u32 = 1;
pub const FLAG_CAPPED: u32 = 2;
pub const FLAG_ROTATED: u32 = 4;

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

/// How fast the rotation of q and k turns: dims i and i + head_dim / 2 by position·theta^(−2i / head_dim) / scale.
#[derive(Clone, Copy, Debug)]
pub struct RopeParameters {
    pub scale: f64,
    pub theta: f64,
}

/// Where a mask lies.
#[derive(Clone, Copy, Debug)]
pub struct MaskTables {
    pub words: Location,
    pub starts: Location,
}

/// Where the scales of tokens lie, in pairs.
#[derive(Clone, Copy, Debug)]
pub struct KvScales {
    pub at: Location,
    pub page_stride: u64,
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
    /// The most keys before its own that a query sees.
    pub window_left: Option<u32>,
    pub soft_cap: Option<f32>,
    pub rope: Option<RopeParameters>,
    pub lse_scale: f64,
    pub heads: Location,
    pub page_size: usize,
    pub q: Rows,
    pub k: Cache,
    pub v: Cache,
    pub out: Rows,
    pub lse: Option<Location>,
    pub requests: Location,
    pub page_table: Location,
    pub page_table_len: usize,
    pub mask: Option<MaskTables>,
    pub kv_scales: Option<KvScales>,
}

impl Descriptor {
    pub fn read(words: &[u32]) -> Result<Descriptor, Status> {
        let words: &[u32; word::COUNT] = words.first_chunk().ok_or(Status::OutOfRange)?;
        let count = |at: usize| words[at] as usize;
        let location = |at: usize| Location { handle: words[at], offset: words[at + 1] };
        let float = |at: usize| f64::from_bits(u64::from(words[at]) | u64::from(words[at + 1]) << 32);
        let flags = words[word::FLAGS];
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
            causal: flags & FLAG_CAUSAL != 0,
            window_left: Some(words[word::WINDOW_LEFT]).filter(|&keys| keys != u32::MAX),
            soft_cap: (flags & FLAG_CAPPED != 0).then_some(f32::from_bits(words[word::SOFT_CAP])),
            rope: (flags & FLAG_ROTATED != 0)
                .then_some(RopeParameters { scale: float(word::ROPE), theta: float(word::ROPE + 2) }),
            lse_scale: float(word::LSE_SCALE),
            heads: location(word::HEADS),
            page_size: count(word::PAGE_SIZE),
            q: rows(word::Q)?,
            k: cache(word::K)?,
            v: cache(word::V)?,
            out: rows(word::OUT)?,
            lse: Some(location(word::LSE)).filter(|lse| lse.handle != 0),
            requests: location(word::REQUESTS),
            page_table: location(word::PAGE_TABLE),
            page_table_len: count(word::PAGE_TABLE_LEN),
            mask: Some(MaskTables { words: location(word::MASK), starts: location(word::MASK_STARTS) })
                .filter(|mask| mask.words.handle != 0),
            kv_scales: Some(KvScales {
                at: location(word::KV_SCALES),
                page_stride: words[word::KV_SCALES + 2].into(),
                head_stride: words[word::KV_SCALES + 3].into(),
            })
            .filter(|scales| scales.at.handle != 0),
        };
        let makes_sense = descriptor.sizes_make_sense() && descriptor.options_make_sense();
        let known_flags = FLAG_CAUSAL | FLAG_CAPPED | FLAG_ROTATED;
        if !makes_sense || flags & !known_flags != 0 {
            return Err(Status::BadDescriptor);
        }
        Ok(descriptor)
    }

    fn sizes_make_sense(&self) -> bool {
        let sizes = [self.num_qo_heads, self.num_kv_heads, self.head_dim, self.head_dim_v, self.page_size];
        !sizes.contains(&0) && self.num_qo_heads.is_multiple_of(self.num_kv_heads)
    }

    fn options_make_sense(&self) -> bool {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let turns =
            |rope: RopeParameters| positive(rope.scale) && positive(rope.theta) && self.head_dim.is_multiple_of(2);
        self.soft_cap.is_none_or(|cap| positive(cap.into())) && self.rope.is_none_or(turns) && positive(self.lse_scale)
    }

    pub fn group_size(&self) -> usize {
        self.num_qo_heads / self.num_kv_heads
    }
}
