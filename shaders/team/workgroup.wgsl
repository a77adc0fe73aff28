// Sums over a team of lanes through workgroup memory: the portable way. Every lane of the workgroup
// must call it, since it meets barriers.

import constants::{TEAM, VALUES, WORKGROUP};

var<workgroup> partials: array<f32, WORKGROUP * VALUES>;

// Every lane of a team gets, for each of VALUES numbers, the sum over the team's lanes.
fn team_sum(partial: array<f32, VALUES>, local: u32) -> array<f32, VALUES> {
  let lane = local % TEAM;
  let team_first = local - lane;
  @unroll for (var i = 0u; i < VALUES; i++) {
    partials[i * WORKGROUP + local] = partial[i];
  }
  workgroupBarrier();
  // The lanes share the sums among them; a sum replaces its first partial.
  for (var i = lane; i < VALUES; i += TEAM) {
    var sum = 0.0;
    for (var other = 0u; other < TEAM; other++) {
      sum += partials[i * WORKGROUP + team_first + other];
    }
    partials[i * WORKGROUP + team_first] = sum;
  }
  workgroupBarrier();
  var sums: array<f32, VALUES>;
  @unroll for (var i = 0u; i < VALUES; i++) {
    sums[i] = partials[i * WORKGROUP + team_first];
  }
  workgroupBarrier();
  return sums;
}
