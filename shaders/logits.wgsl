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
  // Taylor, to 2e-8 relative at 0.3.
  let z = x * x;
  let small = x * fma(z, fma(z, fma(z, fma(z, 0.021869488, -0.053968254), 0.13333334), -0.33333334), 1.0);
  // 2 / sum, with a step of Newton's: some GPUs divide to 2.5 units in the last place.
  let sum = exp2(min(y, 32.0) * 2.8853900817779268) + 1.0;
  let rough = 2.0 / sum;
  let large = 1.0 - fma(rough, fma(-0.5 * sum, rough, 1.0), rough);
  let value = select(select(large, -large, x < 0.0), small, y < 0.3);
  // min() loses a NaN, and a select in its place becomes one in some drivers; its bits last.
  return select(value, x, bitcast<u32>(y) > 0x7f800000u);
}
