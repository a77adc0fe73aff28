//! Checks, before anything is computed, that every row that a call will touch lies in its block.

use super::{Inputs, Outputs};
use crate::descriptor::{Cache, Descriptor, Rows};
use crate::status::Status;

/// Positions and packed rows are compared as signed 32-bit lanes.
const MOST: u64 = i32::MAX as u64;

/// One past the last element of the last head's row at `token` of `page`. Saturates: what does not fit is too far.
fn end(page: u64, page_stride: u64, token: u64, token_stride: u64, heads: usize, head_stride: u64, dim: usize) -> u64 {
    (page.saturating_mul(page_stride))
        .saturating_add(token.saturating_mul(token_stride))
        .saturating_add((heads as u64 - 1).saturating_mul(head_stride))
        .saturating_add(dim as u64)
}

fn within(end: u64, len: usize) -> Result<(), Status> {
    if end <= len as u64 { Ok(()) } else { Err(Status::OutOfRange) }
}

pub fn check(descriptor: &Descriptor, inputs: &Inputs, outputs: &Outputs) -> Result<(), Status> {
    let rows = |rows: &Rows, last: u64, dim| {
        end(0, 0, last, rows.token_stride, descriptor.num_qo_heads, rows.head_stride, dim)
    };
    let page = |cache: &Cache, page: u32, tokens: u64, dim| {
        let heads = descriptor.num_kv_heads;
        end(page.into(), cache.page_stride, tokens - 1, cache.token_stride, heads, cache.head_stride, dim)
    };
    within(descriptor.num_qo_heads as u64, inputs.heads.len())?;
    let page_size = descriptor.page_size as u64;
    for (i, &[q_start, q_len, kv_len, first_page]) in inputs.requests.iter().enumerate() {
        let (q_len, kv_len) = (u64::from(q_len), u64::from(kv_len));
        if q_len.saturating_mul(descriptor.group_size() as u64) > MOST || kv_len > MOST {
            return Err(Status::BadDescriptor);
        }
        if q_len > 0 {
            let q_end = u64::from(q_start) + q_len;
            within(rows(&descriptor.q, q_end - 1, descriptor.head_dim), inputs.q.len())?;
            within(rows(&descriptor.out, q_end - 1, descriptor.head_dim_v), outputs.out.len())?;
            if let Some(lse) = &outputs.lse {
                within(q_end.saturating_mul(descriptor.num_qo_heads as u64), lse.len())?;
            }
        }
        if let Some(mask) = inputs.mask {
            let words = q_len.saturating_mul(kv_len.div_ceil(32));
            within(words.saturating_add(mask.starts[i].into()), mask.words.len())?;
        }
        let pages = inputs.page_table.get(first_page as usize..).ok_or(Status::OutOfRange)?;
        let page_count = kv_len.div_ceil(page_size);
        let pages = pages.get(..page_count as usize).ok_or(Status::OutOfRange)?;
        for (i, &number) in pages.iter().enumerate() {
            let tokens = page_size.min(kv_len - i as u64 * page_size);
            within(page(&descriptor.k, number, tokens, descriptor.head_dim), inputs.k.len())?;
            within(page(&descriptor.v, number, tokens, descriptor.head_dim_v), inputs.v.len())?;
            if let (Some(strides), Some(scales)) = (descriptor.kv_scales, inputs.kv_scales) {
                let heads = descriptor.num_kv_heads;
                let pairs = end(number.into(), strides.page_stride, tokens - 1, 1, heads, strides.head_stride, 1);
                within(pairs.saturating_mul(2), scales.len())?;
            }
        }
    }
    Ok(())
}
