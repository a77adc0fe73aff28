//! What the tests share: a slow and obvious codec, and random numbers that are the same every time.
#![allow(dead_code)]

/// xorshift64*
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In [−1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn units(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit()).collect()
    }
}

/// A binary format narrower than f32.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub dtype: u32,
    pub mantissa: u32,
    pub exponent: u32,
    /// e4m3fn has no infinity, and one NaN in each sign.
    pub finite_only: bool,
}

pub const F16: Format = Format { dtype: 1, mantissa: 10, exponent: 5, finite_only: false };
pub const BF16: Format = Format { dtype: 2, mantissa: 7, exponent: 8, finite_only: false };
pub const E4M3: Format = Format { dtype: 3, mantissa: 3, exponent: 4, finite_only: true };
pub const E5M2: Format = Format { dtype: 4, mantissa: 2, exponent: 5, finite_only: false };

impl Format {
    pub fn bytes(self) -> usize {
        if self.mantissa + self.exponent == 7 { 1 } else { 2 }
    }

    pub fn sign(self) -> u32 {
        1 << (self.mantissa + self.exponent)
    }

    /// The first code, without its sign, that is not a finite number.
    pub fn first_not_finite(self) -> u32 {
        if self.finite_only { 0x7f } else { ((1 << self.exponent) - 1) << self.mantissa }
    }

    /// What a magnitude's code means by the definition, also where it stands for infinity or NaN.
    fn formula(self, code: u32) -> f64 {
        let bias = (1 << (self.exponent - 1)) - 1;
        let exponent = (code >> self.mantissa) as i32;
        let fraction = f64::from(code & ((1 << self.mantissa) - 1)) / f64::from(1u32 << self.mantissa);
        if exponent == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(exponent - bias) }
    }

    pub fn decode(self, code: u32) -> f64 {
        let magnitude = code & (self.sign() - 1);
        let value = match magnitude {
            _ if magnitude < self.first_not_finite() => self.formula(magnitude),
            _ if !self.finite_only && magnitude == self.first_not_finite() => f64::INFINITY,
            _ => f64::NAN,
        };
        if code & self.sign() == 0 { value } else { -value }
    }

    /// The nearest code by search among all of them, the even one of two equally near; then overflow.
    pub fn encode(self, x: f64, saturate: bool) -> u32 {
        let fp8 = self.bytes() == 1;
        let sign = if x.is_sign_negative() { self.sign() } else { 0 };
        if x.is_nan() {
            return match self.dtype {
                1 => sign | 0x7e00,
                2 => sign | 0x7fc0,
                _ if saturate => 0x7f,
                _ => sign | 0x7f,
            };
        }
        let limit = self.first_not_finite();
        // One step beyond the last finite code is what overflow is measured by.
        let mut low = 0;
        let mut high = limit;
        while low < high {
            let middle = (low + high) / 2;
            if self.formula(middle + 1) <= x.abs() { low = middle + 1 } else { high = middle }
        }
        let low = low.min(limit - 1);
        let (below, above) = (x.abs() - self.formula(low), self.formula(low + 1) - x.abs());
        let nearest = if below < above || (below == above && low & 1 == 0) { low } else { low + 1 };
        let code = match nearest {
            _ if nearest < limit => nearest,
            _ if fp8 && saturate => limit - 1,
            _ => limit,
        };
        sign | code
    }
}
