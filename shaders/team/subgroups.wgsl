// Sums over a team of lanes by shuffles. A team lies within a subgroup: TEAM is a power of two, at
// most the smallest subgroup of the device.

import constants::{TEAM, VALUES};

// Tint demands the extension, naga does not know it. (WESL wants imports before directives.)
@if(enable_subgroups) enable subgroups;

// Every lane of a team gets, for each of VALUES numbers, the sum over the team's lanes.
fn team_sum(partial: array<f32, VALUES>, local: u32) -> array<f32, VALUES> {
  var sums = partial;
  @unroll for (var distance = 1u; distance < TEAM; distance *= 2u) {
    @unroll for (var i = 0u; i < VALUES; i++) {
      sums[i] += subgroupShuffleXor(sums[i], distance);
    }
  }
  return sums;
}
