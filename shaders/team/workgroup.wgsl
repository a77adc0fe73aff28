// What a team of lanes does together, through workgroup memory: the portable way. `place` is the lane's
// in the workgroup. Every lane ends with all values (OWN = VALUES), so that all but the sum itself
// needs no other lane.

import constants::{HEADS, OWN, REFS, TEAM, VALUES, WORKGROUP};

var<workgroup> partials: array<f32, WORKGROUP * VALUES>;

// Every lane of a team gets the sums over the team. All lanes of the workgroup must call it, since it
// meets barriers.
fn team_reduce(partial: array<f32, VALUES>, place: u32) -> array<f32, OWN> {
  let lane = place % TEAM;
  let team_first = place - lane;
  @unroll for (var i = 0u; i < VALUES; i++) {
    partials[i * WORKGROUP + place] = partial[i];
  }
  workgroupBarrier();
  // The lanes share the sums among them; a sum replaces its first partial.
  for (var i = lane; i < VALUES; i += TEAM) {
    var sum = 0.0;
    @unroll for (var other = 0u; other < TEAM; other++) {
      sum += partials[i * WORKGROUP + team_first + other];
    }
    partials[i * WORKGROUP + team_first] = sum;
  }
  workgroupBarrier();
  var sums: array<f32, OWN>;
  @unroll for (var i = 0u; i < VALUES; i++) {
    sums[i] = partials[i * WORKGROUP + team_first];
  }
  workgroupBarrier();
  return sums;
}

fn team_gather(
  own: array<f32, OWN>, place: u32, local: u32, step: u32,
) -> array<f32, VALUES> {
  return own;
}

fn team_gather_heads(refs: array<f32, REFS>, place: u32) -> array<f32, HEADS> {
  return refs;
}

fn rows_max(value: f32) -> f32 {
  return value;
}

fn rows_sum(value: f32) -> f32 {
  return value;
}

fn team_any(flag: bool) -> bool {
  return flag;
}
