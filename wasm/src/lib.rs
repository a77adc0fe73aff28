//! The CPU side of `@kvasir/attention`: an exact FP8, FP16 and BF16 codec, and attention over caches of those types.
//!
//! Every export takes and gives plain numbers, so the module is used without glue: blocks of linear memory are named
//! by handle, JavaScript reads and writes them through `block_ptr`, and the answers are the codes of [`Status`].

#![deny(unsafe_code)]

pub mod attention;
pub mod block;
pub mod codec;
pub mod descriptor;
pub mod dtype;
pub mod math;
pub mod merge;
pub mod simd;
pub mod status;

use std::cell::RefCell;

use block::Registry;
use status::Status;
use wasm_bindgen::prelude::wasm_bindgen;

thread_local! {
    static BLOCKS: RefCell<Registry> = const { RefCell::new(Registry::new()) };
}

/// A zeroed, 16-byte-aligned block; its handle, or 0 when memory cannot be had (2 GiB is the most for one block).
#[wasm_bindgen]
pub fn block_alloc(bytes: u32) -> u32 {
    BLOCKS.with_borrow_mut(|blocks| blocks.alloc(bytes))
}

/// The block's address, or 0 for an unknown handle. It stays as long as the block does.
#[wasm_bindgen]
pub fn block_ptr(handle: u32) -> u32 {
    BLOCKS.with_borrow(|blocks| blocks.address(handle))
}

#[wasm_bindgen]
pub fn block_free(handle: u32) {
    BLOCKS.with_borrow_mut(|blocks| blocks.free(handle));
}

/// Converts `count` elements between two different blocks, rounding once, to nearest even.
/// `saturate` concerns FP8 targets only. Dtypes: [`dtype::Dtype`]. Answers a [`Status`].
#[wasm_bindgen]
#[allow(clippy::too_many_arguments)]
pub fn convert(
    src: u32,
    src_offset: u32,
    src_dtype: u32,
    dst: u32,
    dst_offset: u32,
    dst_dtype: u32,
    count: u32,
    saturate: u32,
) -> u32 {
    let from = codec::Place { handle: src, offset: src_offset, dtype: src_dtype };
    let to = codec::Place { handle: dst, offset: dst_offset, dtype: dst_dtype };
    let result = BLOCKS.with_borrow_mut(|blocks| codec::convert(blocks, from, to, count as usize, saturate != 0));
    Status::from(result) as u32
}

/// Attention as the descriptor in block `desc` says (see [`descriptor`]). Answers a [`Status`].
#[wasm_bindgen]
pub fn attention(desc: u32) -> u32 {
    Status::from(BLOCKS.with_borrow_mut(|blocks| attention::run(blocks, desc))) as u32
}

/// Merges attention states as the descriptor in block `desc` says (see [`merge::descriptor`]). Answers a [`Status`].
#[wasm_bindgen]
pub fn merge(desc: u32) -> u32 {
    Status::from(BLOCKS.with_borrow_mut(|blocks| merge::run(blocks, desc))) as u32
}
