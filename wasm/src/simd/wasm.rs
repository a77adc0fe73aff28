//! The vectors as WebAssembly has them.

use core::arch::wasm32::*;
use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

use bytemuck::must_cast;

#[derive(Clone, Copy)]
pub struct F32x4(v128);
/// Also the result of a comparison: all ones where it holds.
#[derive(Clone, Copy)]
pub struct U32x4(v128);
#[derive(Clone, Copy)]
pub struct U16x8(v128);
#[derive(Clone, Copy)]
pub struct U8x16(v128);

macro_rules! operators {
    ($($vector:ident $operator:ident $method:ident $instruction:ident;)*) => {$(
        impl $operator for $vector {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self($instruction(self.0, other.0))
            }
        }
    )*};
}

operators! {
    F32x4 Add add f32x4_add;
    F32x4 Sub sub f32x4_sub;
    F32x4 Mul mul f32x4_mul;
    F32x4 Div div f32x4_div;
    U32x4 Add add i32x4_add;
    U32x4 Sub sub i32x4_sub;
    U32x4 BitAnd bitand v128_and;
    U32x4 BitOr bitor v128_or;
    U32x4 BitXor bitxor v128_xor;
    U8x16 BitAnd bitand v128_and;
    U8x16 BitOr bitor v128_or;
    U8x16 BitXor bitxor v128_xor;
}

impl F32x4 {
    #[inline(always)]
    pub fn load(from: &[f32; 4]) -> Self {
        Self(must_cast(*from))
    }

    #[inline(always)]
    pub fn array(self) -> [f32; 4] {
        must_cast(self.0)
    }

    #[inline(always)]
    pub fn splat(value: f32) -> Self {
        Self(f32x4_splat(value))
    }

    /// self·factor + term.
    #[inline(always)]
    pub fn mul_add(self, factor: Self, term: Self) -> Self {
        #[cfg(target_feature = "relaxed-simd")]
        return Self(f32x4_relaxed_madd(self.0, factor.0, term.0));
        #[cfg(not(target_feature = "relaxed-simd"))]
        return self * factor + term;
    }

    /// `if self < other { other } else { self }`: a NaN in `other` is passed over, one in `self` stays.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self(f32x4_pmax(self.0, other.0))
    }

    /// To the nearest integer, ties to even.
    #[inline(always)]
    pub fn round(self) -> Self {
        Self(f32x4_nearest(self.0))
    }

    #[inline(always)]
    pub fn lt(self, other: Self) -> U32x4 {
        U32x4(f32x4_lt(self.0, other.0))
    }

    #[inline(always)]
    pub fn eq(self, other: Self) -> U32x4 {
        U32x4(f32x4_eq(self.0, other.0))
    }

    #[inline(always)]
    pub fn bits(self) -> U32x4 {
        U32x4(self.0)
    }

    /// Lane i is the sum of the four lanes of `rows[i]`.
    #[inline(always)]
    pub fn sums([a, b, c, d]: [Self; 4]) -> Self {
        let pairs = |x: v128, y: v128| f32x4_add(i32x4_shuffle::<0, 4, 1, 5>(x, y), i32x4_shuffle::<2, 6, 3, 7>(x, y));
        let (ab, cd) = (pairs(a.0, b.0), pairs(c.0, d.0));
        Self(f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(ab, cd), i32x4_shuffle::<2, 3, 6, 7>(ab, cd)))
    }
}

impl U32x4 {
    #[inline(always)]
    pub fn load(from: &[u32; 4]) -> Self {
        Self(must_cast(*from))
    }

    #[inline(always)]
    pub fn splat(value: u32) -> Self {
        Self(u32x4_splat(value))
    }

    #[inline(always)]
    pub fn shl<const N: u32>(self) -> Self {
        Self(u32x4_shl(self.0, N))
    }

    #[inline(always)]
    pub fn shr<const N: u32>(self) -> Self {
        Self(u32x4_shr(self.0, N))
    }

    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        Self(u32x4_min(self.0, other.0))
    }

    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self(u32x4_max(self.0, other.0))
    }

    /// As signed integers, which is the comparison that hardware has.
    #[inline(always)]
    pub fn gt(self, other: Self) -> Self {
        Self(i32x4_gt(self.0, other.0))
    }

    #[inline(always)]
    pub fn eq(self, other: Self) -> Self {
        Self(i32x4_eq(self.0, other.0))
    }

    #[inline(always)]
    pub fn and_not(self, other: Self) -> Self {
        Self(v128_andnot(self.0, other.0))
    }

    #[inline(always)]
    pub fn any(self) -> bool {
        v128_any_true(self.0)
    }

    /// `yes` where self is all ones, `no` where it is zero.
    #[inline(always)]
    pub fn select(self, yes: Self, no: Self) -> Self {
        Self(v128_bitselect(yes.0, no.0, self.0))
    }

    #[inline(always)]
    pub fn floats(self) -> F32x4 {
        F32x4(self.0)
    }

    // Not the narrowing instructions: LLVM rewrites them into clamps and shuffles, which cost more than these.

    /// The lanes' low bytes; they must be below 256.
    #[inline(always)]
    pub fn narrow_to_bytes([a, b, c, d]: [Self; 4]) -> U8x16 {
        let mixed = (a | b.shl::<8>()) | (c.shl::<16>() | d.shl::<24>());
        U8x16(u8x16_shuffle::<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(mixed.0, mixed.0))
    }

    /// The lanes' low halves; they must be below 65,536.
    #[inline(always)]
    pub fn narrow([a, b]: [Self; 2]) -> U16x8 {
        let mixed = a | b.shl::<16>();
        U16x8(u16x8_shuffle::<0, 2, 4, 6, 1, 3, 5, 7>(mixed.0, mixed.0))
    }
}

impl U16x8 {
    #[inline(always)]
    pub fn load(from: &[u16; 8]) -> Self {
        Self(must_cast(*from))
    }

    #[inline(always)]
    pub fn array(self) -> [u16; 8] {
        must_cast(self.0)
    }

    /// With the sign bit of each repeated above it.
    #[inline(always)]
    pub fn widen_signed(self) -> [U32x4; 2] {
        [U32x4(i32x4_extend_low_i16x8(self.0)), U32x4(i32x4_extend_high_i16x8(self.0))]
    }

    /// Each as the upper half of a word: bf16 to f32.
    #[inline(always)]
    pub fn widen_as_upper_halves(self) -> [U32x4; 2] {
        let zero = u16x8_splat(0);
        [
            U32x4(i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(zero, self.0)),
            U32x4(i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(zero, self.0)),
        ]
    }
}

impl U8x16 {
    #[inline(always)]
    pub fn load(from: &[u8; 16]) -> Self {
        Self(must_cast(*from))
    }

    #[inline(always)]
    pub fn array(self) -> [u8; 16] {
        must_cast(self.0)
    }

    #[inline(always)]
    pub fn splat(value: u8) -> Self {
        Self(u8x16_splat(value))
    }

    #[inline(always)]
    pub fn shl<const N: u32>(self) -> Self {
        Self(u8x16_shl(self.0, N))
    }

    #[inline(always)]
    pub fn shr<const N: u32>(self) -> Self {
        Self(u8x16_shr(self.0, N))
    }

    /// As unsigned integers: all ones where `self >= other`.
    #[inline(always)]
    pub fn ge(self, other: Self) -> Self {
        Self(u8x16_ge(self.0, other.0))
    }

    #[inline(always)]
    pub fn wrapping_add(self, other: Self) -> Self {
        Self(u8x16_add(self.0, other.0))
    }

    /// Self is a table of 16; an index of 16 or more gives 0.
    #[inline(always)]
    pub fn lookup(self, indices: Self) -> Self {
        Self(u8x16_swizzle(self.0, indices.0))
    }

    /// Halves of which `self` is the low byte and `high` the high one.
    #[inline(always)]
    pub fn with_high_bytes(self, high: Self) -> [U16x8; 2] {
        [
            U16x8(u8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(self.0, high.0)),
            U16x8(u8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(self.0, high.0)),
        ]
    }
}
