//! The vectors as arrays, for hosts without WebAssembly's: what the crate's own tests run on.

use core::array::from_fn;
use core::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Sub};

#[derive(Clone, Copy)]
pub struct F32x4([f32; 4]);
/// Also the result of a comparison: all ones where it holds.
#[derive(Clone, Copy)]
pub struct U32x4([u32; 4]);
#[derive(Clone, Copy)]
pub struct U16x8([u16; 8]);
#[derive(Clone, Copy)]
pub struct U8x16([u8; 16]);

macro_rules! operators {
    ($($vector:ident $operator:ident $method:ident |$a:ident, $b:ident| $result:expr;)*) => {$(
        impl $operator for $vector {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(from_fn(|i| { let ($a, $b) = (self.0[i], other.0[i]); $result }))
            }
        }
    )*};
}

operators! {
    F32x4 Add add |a, b| a + b;
    F32x4 Sub sub |a, b| a - b;
    F32x4 Mul mul |a, b| a * b;
    F32x4 Div div |a, b| a / b;
    U32x4 Add add |a, b| a.wrapping_add(b);
    U32x4 Sub sub |a, b| a.wrapping_sub(b);
    U32x4 BitAnd bitand |a, b| a & b;
    U32x4 BitOr bitor |a, b| a | b;
    U32x4 BitXor bitxor |a, b| a ^ b;
    U8x16 BitAnd bitand |a, b| a & b;
    U8x16 BitOr bitor |a, b| a | b;
    U8x16 BitXor bitxor |a, b| a ^ b;
}

fn mask(holds: bool) -> u32 {
    if holds { u32::MAX } else { 0 }
}

impl F32x4 {
    pub fn load(from: &[f32; 4]) -> Self {
        Self(*from)
    }

    pub fn array(self) -> [f32; 4] {
        self.0
    }

    pub fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    /// self·factor + term.
    #[inline(always)]
    pub fn mul_add(self, factor: Self, term: Self) -> Self {
        self * factor + term
    }

    /// `if self < other { other } else { self }`: a NaN in `other` is passed over, one in `self` stays.
    pub fn max(self, other: Self) -> Self {
        Self(from_fn(|i| if self.0[i] < other.0[i] { other.0[i] } else { self.0[i] }))
    }

    /// To the nearest integer, ties to even.
    pub fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    pub fn lt(self, other: Self) -> U32x4 {
        U32x4(from_fn(|i| mask(self.0[i] < other.0[i])))
    }

    pub fn eq(self, other: Self) -> U32x4 {
        U32x4(from_fn(|i| mask(self.0[i] == other.0[i])))
    }

    pub fn bits(self) -> U32x4 {
        U32x4(self.0.map(f32::to_bits))
    }

    /// Lane i is the sum of the four lanes of `rows[i]`.
    pub fn sums(rows: [Self; 4]) -> Self {
        Self(rows.map(|Self([a, b, c, d])| (a + c) + (b + d)))
    }
}

impl U32x4 {
    pub fn load(from: &[u32; 4]) -> Self {
        Self(*from)
    }

    pub fn splat(value: u32) -> Self {
        Self([value; 4])
    }

    pub fn shl<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| lane << N))
    }

    pub fn shr<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| lane >> N))
    }

    pub fn min(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i].min(other.0[i])))
    }

    pub fn max(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i].max(other.0[i])))
    }

    /// As signed integers, which is the comparison that hardware has.
    pub fn gt(self, other: Self) -> Self {
        Self(from_fn(|i| mask(self.0[i] as i32 > other.0[i] as i32)))
    }

    pub fn eq(self, other: Self) -> Self {
        Self(from_fn(|i| mask(self.0[i] == other.0[i])))
    }

    pub fn and_not(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i] & !other.0[i]))
    }

    pub fn any(self) -> bool {
        self.0 != [0; 4]
    }

    /// `yes` where self is all ones, `no` where it is zero.
    pub fn select(self, yes: Self, no: Self) -> Self {
        Self(from_fn(|i| (self.0[i] & yes.0[i]) | (!self.0[i] & no.0[i])))
    }

    pub fn floats(self) -> F32x4 {
        F32x4(self.0.map(f32::from_bits))
    }

    /// The lanes' low bytes; they must be below 256.
    pub fn narrow_to_bytes(lanes: [Self; 4]) -> U8x16 {
        U8x16(from_fn(|i| lanes[i / 4].0[i % 4] as u8))
    }

    /// The lanes' low halves; they must be below 65,536.
    pub fn narrow(lanes: [Self; 2]) -> U16x8 {
        U16x8(from_fn(|i| lanes[i / 4].0[i % 4] as u16))
    }
}

impl U16x8 {
    pub fn load(from: &[u16; 8]) -> Self {
        Self(*from)
    }

    pub fn array(self) -> [u16; 8] {
        self.0
    }

    /// With the sign bit of each repeated above it.
    pub fn widen_signed(self) -> [U32x4; 2] {
        from_fn(|half| U32x4(from_fn(|i| i32::from(self.0[4 * half + i] as i16) as u32)))
    }

    /// Each as the upper half of a word: bf16 to f32.
    pub fn widen_as_upper_halves(self) -> [U32x4; 2] {
        self.widen_signed().map(|lanes| lanes.shl::<16>())
    }
}

impl U8x16 {
    pub fn load(from: &[u8; 16]) -> Self {
        Self(*from)
    }

    pub fn array(self) -> [u8; 16] {
        self.0
    }

    pub fn splat(value: u8) -> Self {
        Self([value; 16])
    }

    pub fn shl<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| lane << N))
    }

    pub fn shr<const N: u32>(self) -> Self {
        Self(self.0.map(|lane| lane >> N))
    }

    /// As unsigned integers: all ones where `self >= other`.
    pub fn ge(self, other: Self) -> Self {
        Self(from_fn(|i| mask(self.0[i] >= other.0[i]) as u8))
    }

    pub fn wrapping_add(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i].wrapping_add(other.0[i])))
    }

    /// Self is a table of 16; an index of 16 or more gives 0.
    pub fn lookup(self, indices: Self) -> Self {
        Self(indices.0.map(|index| self.0.get(index as usize).copied().unwrap_or(0)))
    }

    /// Halves of which `self` is the low byte and `high` the high one.
    pub fn with_high_bytes(self, high: Self) -> [U16x8; 2] {
        from_fn(|half| U16x8(from_fn(|i| u16::from_le_bytes([self.0[8 * half + i], high.0[8 * half + i]]))))
    }
}
