//! All 2³² floats through the FP8 encoders, both formats, both modes: `deno task fp8:proof`, minutes, so ignored by
//! default.
//!
//! The judge knows no arithmetic of floats: positive floats are ordered as their bits are, so each code owns one
//! interval of integers. The bounds are the bits of the midpoints between neighbouring values, which a float32 holds
//! exactly; a midpoint itself belongs to the even code. Nothing is shared with narrow.rs, nor with the search in common.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::{E4M3, E5M2, F16, Format};
use kvasir_wasm::codec::{Slice, SliceMut};

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0x7f80_0000;
const CHUNK: u32 = 1 << 16;
const CHUNKS: u64 = (1 << 32) / CHUNK as u64;

/// For each finite code and the one past them: the first bits of a float that round to it.
fn first_bits(format: Format) -> Vec<u32> {
    let value = |code: u32| {
        // The definition, with the code that overflows read as if it were a number.
        let (exponent, fraction) = (code >> format.mantissa, code & ((1 << format.mantissa) - 1));
        let bias = (1 << (format.exponent - 1)) - 1;
        let implicit = if exponent == 0 { 0 } else { 1 << format.mantissa };
        f64::from(implicit | fraction) * 2f64.powi(exponent.max(1) as i32 - bias - format.mantissa as i32)
    };
    let mut first = vec![0];
    for code in 1..=format.first_not_finite() {
        let middle = (value(code - 1) + value(code)) / 2.0;
        let bits = (middle as f32).to_bits();
        assert_eq!(f64::from(f32::from_bits(bits)), middle, "a midpoint that no float32 holds");
        // The tie goes to the even of the two.
        first.push(if code % 2 == 0 { bits } else { bits + 1 });
    }
    first
}

/// What each of a chunk's floats must become, by walking over the intervals.
fn expected(start: u32, first: &[u32], saturate: bool, nan: u8, codes: &mut [u8]) {
    let overflow = first.len() - 1;
    let sign = if start & SIGN == 0 { 0 } else { 0x80 };
    let magnitude = start & !SIGN;
    let mut code = first.partition_point(|&bits| bits <= magnitude) - 1;
    for (bits, to) in (magnitude..).zip(codes) {
        while code < overflow && first[code + 1] <= bits {
            code += 1;
        }
        *to = match code {
            _ if bits > INFINITY => nan | if saturate { 0 } else { sign },
            _ if code == overflow && saturate => (overflow - 1) as u8 | sign,
            _ => code as u8 | sign,
        };
    }
}

/// Runs `check` on the first float's bits of every chunk, on all cores; the sum of what it gives.
fn sum_over_all(check: impl Fn(u32) -> u64 + Sync) -> u64 {
    let (next, sum) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let chunk = next.fetch_add(1, Ordering::Relaxed);
                    if chunk >= CHUNKS {
                        break;
                    }
                    sum.fetch_add(check(chunk as u32 * CHUNK), Ordering::Relaxed);
                }
            });
        }
    });
    sum.into_inner()
}

fn floats(start: u32) -> Vec<f32> {
    (0..CHUNK).map(|i| f32::from_bits(start + i)).collect()
}

fn encode(floats: &[f32], format: Format, saturate: bool) -> Vec<u8> {
    let mut codes = vec![0; floats.len()];
    let mut target = if format.finite_only { SliceMut::E4m3(&mut codes) } else { SliceMut::E5m2(&mut codes) };
    assert_eq!(target.write(0, floats, saturate), Ok(()));
    codes
}

#[test]
#[ignore = "minutes of work: deno task fp8:proof"]
fn all_floats_encode_by_the_definition() {
    for format in [E4M3, E5M2] {
        let first = first_bits(format);
        for saturate in [true, false] {
            let wrong = sum_over_all(|start| {
                let floats = floats(start);
                let codes = encode(&floats, format, saturate);
                let mut right = vec![0; codes.len()];
                expected(start, &first, saturate, 0x7f, &mut right);
                if codes == right {
                    return 0;
                }
                codes.iter().zip(&right).filter(|(code, right)| code != right).count() as u64
            });
            println!("{format:?}, saturate {saturate}: {} floats, {wrong} wrong", 1u64 << 32);
            assert_eq!(wrong, 0);
        }
    }
}

/// By way of float16 some round twice; the counts are known from elsewhere, so they judge the sweep itself.
#[test]
#[ignore = "minutes of work: deno task fp8:proof"]
fn rounding_twice_would_be_seen() {
    for (format, known) in [(E4M3, 1_032_192), (E5M2, 1_105_920)] {
        let differ = sum_over_all(|start| {
            let floats = floats(start);
            let mut halves = vec![0; floats.len()];
            assert_eq!(SliceMut::F16(&mut halves).write(0, &floats, true), Ok(()));
            let mut twice = vec![0.0; floats.len()];
            assert_eq!(Slice::F16(&halves).read(0, &mut twice), Ok(()));
            let (once, twice) = (encode(&floats, format, true), encode(&twice, format, true));
            once.iter().zip(&twice).filter(|(once, twice)| once != twice).count() as u64
        });
        println!("{format:?}: {differ} floats would differ by way of {F16:?}");
        assert_eq!(differ, known);
    }
}
