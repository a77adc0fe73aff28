//! The codec: every dtype from and to f32, whole slices at a time, and the conversion of one block into another.
//!
//! Widening is exact. Narrowing rounds once, to nearest even, also from f64.

mod convert;
mod narrow;
mod odd;
mod slices;
mod widen;

pub use convert::{Place, convert};
pub use odd::round_to_odd;
pub use slices::{Slice, SliceMut};
