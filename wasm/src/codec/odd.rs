//! f64 to f32 by rounding to odd: the value cut to 24 bits, its last bit set if anything was cut. Rounding the result
//! again, to any format of 22 bits or fewer, gives what rounding once would have.

pub fn round_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if x.is_nan() {
        return f32::from_bits(((x.to_bits() >> 63) as u32) << 31 | 0x7fc0_0000);
    }
    if f64::from(nearest) == x {
        return nearest;
    }
    // Nearest may have gone away from zero, to infinity even; the float before it is then the one that was cut to.
    let away = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}
