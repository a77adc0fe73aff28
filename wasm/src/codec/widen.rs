//! From storage codes to f32, exactly, with subnormals, infinities and NaN.
//!
//! FP8 goes through bf16, which holds every FP8 value: sixteen codes at a time become high and low bytes. Exponents
//! are moved with integer additions, and a table of sixteen corrects the few subnormal codes, because multiplying
//! would meet f32 subnormals, which hardware handles slowly. FP16 does multiply: its subnormals are rare.
//!
//! Each function makes its constants, and gives a function of sixteen or eight codes.

use std::hint::black_box;

use bytemuck::must_cast;

use crate::simd::{U8x16, U16x8, U32x4};

/// What to XOR into the high or low byte of the bf16 that the normal rule gives to the smallest codes.
/// The value of subnormal code m is m·unit; the rule gives it the bits `rule | m << shift`.
const fn subnormal_fix(subnormals: usize, unit: f32, rule: u32, shift: u32, high: bool) -> [u8; 16] {
    let mut table = [0; 16];
    let mut m = 0;
    while m < subnormals {
        let wrong_bits = (rule | (m as u32) << shift) ^ ((m as f32 * unit).to_bits() >> 16);
        table[m] = if high { (wrong_bits >> 8) as u8 } else { wrong_bits as u8 };
        m += 1;
    }
    table
}

/// The high byte by a code's upper nibble (sign and three of four exponent bits): the bias moves from 7 to 127.
const E4M3_HIGH: [u8; 16] = {
    let mut table = [0; 16];
    let mut nibble = 0;
    while nibble < 16 {
        table[nibble] = ((nibble & 8) << 4) as u8 | (60 + (nibble & 7)) as u8;
        nibble += 1;
    }
    table
};
const E4M3_FIX_HIGH: [u8; 16] = subnormal_fix(8, 1.0 / 512.0, 60 << 8, 4, true);
const E4M3_FIX_LOW: [u8; 16] = subnormal_fix(8, 1.0 / 512.0, 60 << 8, 4, false);
const E5M2_FIX_HIGH: [u8; 16] = subnormal_fix(4, 1.0 / 65536.0, 56 << 8, 5, true);
const E5M2_FIX_LOW: [u8; 16] = subnormal_fix(4, 1.0 / 65536.0, 56 << 8, 5, false);

#[inline(always)]
fn bf16_bytes_to_f32(high: U8x16, low: U8x16) -> [f32; 16] {
    let [a, b] = low.with_high_bytes(high).map(U16x8::widen_as_upper_halves);
    must_cast([a[0], a[1], b[0], b[1]].map(|bits| bits.floats().array()))
}

/// The tables and masks of an FP8 format; hidden from the compilers for the reason that narrow.rs gives.
fn constants<const N: usize, const M: usize>(tables: [[u8; 16]; N], bytes: [u8; M]) -> ([U8x16; N], [U8x16; M]) {
    (black_box(tables).map(|table| U8x16::load(&table)), black_box(bytes).map(U8x16::splat))
}

pub fn e4m3() -> impl Fn(&[u8; 16]) -> [f32; 16] {
    let ([high, fix_high, fix_low], [all_ones]) = constants([E4M3_HIGH, E4M3_FIX_HIGH, E4M3_FIX_LOW], [0x7f]);
    move |codes| {
        let codes = U8x16::load(codes);
        let magnitude = codes & all_ones;
        let nan = magnitude.ge(all_ones) & all_ones;
        let high = high.lookup(codes.shr::<4>()) ^ fix_high.lookup(magnitude);
        let low = codes.shl::<4>() ^ fix_low.lookup(magnitude);
        bf16_bytes_to_f32(high | nan, low)
    }
}

pub fn e5m2() -> impl Fn(&[u8; 16]) -> [f32; 16] {
    let ([fix_high, fix_low], [all_ones, infinity, rebias]) =
        constants([E5M2_FIX_HIGH, E5M2_FIX_LOW], [0x7f, 0x7c, (127 - 15) >> 1]);
    move |codes| {
        let codes = U8x16::load(codes);
        let magnitude = codes & all_ones;
        let not_finite = magnitude.ge(infinity) & all_ones;
        let exponent = magnitude.shr::<3>().wrapping_add(rebias);
        let high = (exponent | (codes ^ magnitude)) ^ fix_high.lookup(magnitude);
        let low = codes.shl::<5>() ^ fix_low.lookup(magnitude);
        bf16_bytes_to_f32(high | not_finite, low)
    }
}

pub fn bf16() -> impl Fn(&[u16; 8]) -> [f32; 8] {
    |codes| must_cast(U16x8::load(codes).widen_as_upper_halves().map(|bits| bits.floats().array()))
}

pub fn f16() -> impl Fn(&[u16; 8]) -> [f32; 8] {
    let [sign_and_magnitude, exponent, infinity, rebias] =
        black_box([0x8fff_e000, 31 << 23, 0x7f80_0000, (127 + 127 - 15) << 23]).map(U32x4::splat);
    move |codes| {
        must_cast(U16x8::load(codes).widen_signed().map(|code| {
            // Sign and magnitude where f32 has them; the product moves the bias, and makes subnormals normal.
            let bits = code.shl::<13>() & sign_and_magnitude;
            let not_finite = (bits & exponent).eq(exponent) & infinity;
            ((bits.floats() * rebias.floats()).bits() | not_finite).floats().array()
        }))
    }
}
