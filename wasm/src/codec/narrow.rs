//! From f32 to storage codes: round to nearest even first, then overflow.
//!
//! One rule serves FP8 and FP16, normal and subnormal. Adding a power of two whose unit in the last place is the
//! format's step at x makes the float adder round x to that step; the sum's low bits then count the steps, and the
//! exponent, not below the smallest normal's, says which code the count starts from.
//!
//! Each function makes its constants, and gives a function of sixteen values.

use std::array::from_fn;
use std::hint::black_box;

use crate::simd::{F32x4, U16x8, U32x4};

const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7f80_0000;

/// A format of `MANTISSA` bits whose smallest normal has the biased f32 exponent `LOWEST`.
#[derive(Clone, Copy)]
struct Format<const MANTISSA: u32, const LOWEST: u32> {
    /// Magnitudes are cut to this float, which rounds to the code that overflow gives.
    limit: U32x4,
    magnitude: U32x4,
    exponent: U32x4,
    lowest: U32x4,
    /// From the exponent of a value to that of the power of two that rounds it.
    to_step: U32x4,
    start: U32x4,
}

impl<const MANTISSA: u32, const LOWEST: u32> Format<MANTISSA, LOWEST> {
    fn new(limit: f32) -> Self {
        // Hidden from the compilers: V8 makes a vector constant anew wherever it is used, inside loops too, which
        // took a quarter of the time. What is not a constant is made once.
        let [limit, magnitude, exponent, lowest, to_step, start] =
            black_box([limit.to_bits(), !SIGN, INFINITY, LOWEST << 23, (23 - MANTISSA) << 23, LOWEST << MANTISSA])
                .map(U32x4::splat);
        Format { limit, magnitude, exponent, lowest, to_step, start }
    }

    /// The codes of magnitudes, of which NaN gives that of the limit.
    #[inline(always)]
    fn round(self, magnitude: U32x4) -> U32x4 {
        let magnitude = magnitude.min(self.limit);
        let exponent = (magnitude & self.exponent).max(self.lowest);
        let rounder = exponent + self.to_step;
        let steps = (magnitude.floats() + rounder.floats()).bits() - rounder;
        let codes_below = match MANTISSA {
            2 => exponent.shr::<21>(),
            3 => exponent.shr::<20>(),
            _ => exponent.shr::<13>(),
        };
        steps + codes_below - self.start
    }

    /// Which are NaN, if any of the sixteen is.
    #[inline(always)]
    fn nan(self, magnitudes: [U32x4; 4]) -> Option<[U32x4; 4]> {
        let [a, b, c, d] = magnitudes;
        let any = a.max(b).max(c.max(d)).gt(self.exponent).any();
        any.then(|| magnitudes.map(|magnitude| magnitude.gt(self.exponent)))
    }
}

#[inline(always)]
fn bits(values: &[f32; 16]) -> [U32x4; 4] {
    bytemuck::must_cast::<[f32; 16], [[f32; 4]; 4]>(*values).map(|lanes| F32x4::load(&lanes).bits())
}

#[inline(always)]
fn fp8<const MANTISSA: u32, const LOWEST: u32>(limit: f32, signed_nan: bool) -> impl Fn(&[f32; 16]) -> [u8; 16] {
    let format = Format::<MANTISSA, LOWEST>::new(limit);
    let nan_sign = U32x4::splat(if signed_nan { SIGN } else { 0 });
    move |values| {
        let values = bits(values);
        let magnitudes = values.map(|x| x & format.magnitude);
        let mut signs: [U32x4; 4] = from_fn(|i| values[i] ^ magnitudes[i]);
        let mut codes = magnitudes.map(|magnitude| format.round(magnitude));
        if let Some(nan) = format.nan(magnitudes) {
            for i in 0..4 {
                codes[i] = codes[i] | (nan[i] & U32x4::splat(0x7f));
                signs[i] = nan[i].select(signs[i] & nan_sign, signs[i]);
            }
        }
        U32x4::narrow_to_bytes(from_fn(|i| codes[i] | signs[i].shr::<24>())).array()
    }
}

/// Beyond the range: `saturate`, or NaN, whose code 480 would have if it were a number.
pub fn e4m3(saturate: bool) -> impl Fn(&[f32; 16]) -> [u8; 16] {
    fp8::<3, { 127 - 6 }>(if saturate { 448.0 } else { 480.0 }, !saturate)
}

/// Beyond the range: `saturate`, or infinity, whose code 65536 would have.
pub fn e5m2(saturate: bool) -> impl Fn(&[f32; 16]) -> [u8; 16] {
    fp8::<2, { 127 - 14 }>(if saturate { 57344.0 } else { 65536.0 }, !saturate)
}

#[inline(always)]
fn halves([a, b, c, d]: [U32x4; 4]) -> [u16; 16] {
    bytemuck::must_cast([U32x4::narrow([a, b]), U32x4::narrow([c, d])].map(U16x8::array))
}

pub fn f16() -> impl Fn(&[f32; 16]) -> [u16; 16] {
    // 65536 has the code of infinity.
    let format = Format::<10, { 127 - 14 }>::new(65536.0);
    move |values| {
        let values = bits(values);
        let magnitudes = values.map(|x| x & format.magnitude);
        let mut codes = magnitudes.map(|magnitude| format.round(magnitude));
        if let Some(nan) = format.nan(magnitudes) {
            codes = from_fn(|i| codes[i] | (nan[i] & U32x4::splat(0x7e00)));
        }
        halves(from_fn(|i| codes[i] | (values[i] ^ magnitudes[i]).shr::<16>()))
    }
}

/// bf16 has the exponents of f32, so rounding is an integer addition, and its carry overflows into infinity.
pub fn bf16() -> impl Fn(&[f32; 16]) -> [u16; 16] {
    let [magnitude, infinity, half, one, quiet] = black_box([!SIGN, INFINITY, 0x7fff, 1, 0x40]).map(U32x4::splat);
    move |values| {
        halves(bits(values).map(|x| {
            let upper = x.shr::<16>();
            let rounded = (x + half + (upper & one)).shr::<16>();
            (x & magnitude).gt(infinity).select(upper | quiet, rounded)
        }))
    }
}
