//! What is to be merged, as a block of 32-bit words that JavaScript writes.

use crate::block::Location;
use crate::dtype::Dtype;
use crate::status::Status;

/// Where each word is.
pub mod word {
    pub const NUM_ROWS: usize = 0;
    pub const NUM_HEADS: usize = 1;
    pub const HEAD_DIM: usize = 2;
    /// The dtype of both sources.
    pub const V_DTYPE: usize = 3;
    pub const OUT_DTYPE: usize = 4;
    /// Handle and byte offset each of v and s of source a; v and s of source b; out; lse. v and out are [rows, heads,
    /// head_dim], s and lse are f32 [rows, heads], in base 2.
    pub const SOURCES: [usize; 2] = [5, 9];
    pub const OUT: usize = 13;
    pub const LSE: usize = 15;
    /// handle, byte offset; for each row of the result: its first row of a, how many, its first row of b, how many
    pub const ROWS: usize = 17;
    pub const COUNT: usize = 19;
}

#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub v: Location,
    pub s: Location,
}

#[derive(Clone, Debug)]
pub struct Descriptor {
    pub num_rows: usize,
    pub num_heads: usize,
    pub head_dim: usize,
    pub v_dtype: Dtype,
    pub out_dtype: Dtype,
    pub sources: [Source; 2],
    pub out: Location,
    pub lse: Location,
    pub rows: Location,
}

impl Descriptor {
    pub fn read(words: &[u32]) -> Result<Descriptor, Status> {
        let words: &[u32; word::COUNT] = words.first_chunk().ok_or(Status::OutOfRange)?;
        let location = |at: usize| Location { handle: words[at], offset: words[at + 1] };
        let descriptor = Descriptor {
            num_rows: words[word::NUM_ROWS] as usize,
            num_heads: words[word::NUM_HEADS] as usize,
            head_dim: words[word::HEAD_DIM] as usize,
            v_dtype: Dtype::storage(words[word::V_DTYPE])?,
            out_dtype: Dtype::storage(words[word::OUT_DTYPE])?,
            sources: word::SOURCES.map(|at| Source { v: location(at), s: location(at + 2) }),
            out: location(word::OUT),
            lse: location(word::LSE),
            rows: location(word::ROWS),
        };
        if descriptor.num_heads == 0 || descriptor.head_dim == 0 {
            return Err(Status::BadDescriptor);
        }
        Ok(descriptor)
    }
}
