//! Vectors of 128 bits, with the same meaning on WebAssembly and, for `cargo test`, on any host.
//!
//! A product and sum (`mul_add`) is fused only where the build has relaxed SIMD; everything else is exact to the bit
//! on both. No `unsafe` is needed: bytemuck turns arrays into vectors, which compiles to a plain load.

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{F32x4, U8x16, U16x8, U32x4};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::{F32x4, U8x16, U16x8, U32x4};

/// Four floats in memory, at any address.
pub type Lanes = [f32; 4];
