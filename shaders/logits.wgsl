// What becomes of a scaled logit before the softmax, in base 2 (FlashInfer's LogitsTransform).
// `distance` is the key's position less the query's.

import package::params::params;

@if(!alibi && !soft_cap) fn transform(logit: f32, slope: f32, distance: f32) -> f32 {
  return logit;
}

@if(alibi && !soft_cap) fn transform(logit: f32, slope: f32, distance: f32) -> f32 {
  return fma(slope, distance, logit);
}

// cap · tanh((logit + slope · distance) / cap): the scales hold 1 / cap.
@if(soft_cap) fn transform(logit: f32, slope: f32, distance: f32) -> f32 {
  @if(alibi) let x = fma(slope, distance, logit);
  @else let x = logit;
  return params.soft_cap * tangent(x);
}

// The builtin is exact to 2^-11 on some hardware.
@if(soft_cap) fn tangent(x: f32) -> f32 {
  let y = abs(x);
  // Lambert's continued fraction, to 4e-10 at 1: no difference of near numbers.
  let z = x * x;
  let above = x * fma(z, fma(z, 21.0, 1260.0), 10395.0);
  let below = fma(z, fma(z, z + 210.0, 4725.0), 10395.0);
  let small = quotient(above, below);
  let large = 1.0 - quotient(2.0, exp2(min(y, 32.0) * 2.8853900817779268) + 1.0);
  let value = select(select(large, -large, x < 0.0), small, y < 1.0);
  // min() loses a NaN, and a select in its place becomes one in some drivers; its bits last.
  return select(value, x, bitcast<u32>(y) > 0x7f800000u);
}

// GPUs may divide to 2.5 units in the last place.
@if(soft_cap) fn quotient(a: f32, b: f32) -> f32 {
  let rough = a / b;
  return fma(fma(-b, rough, a), 1.0 / b, rough);
}
